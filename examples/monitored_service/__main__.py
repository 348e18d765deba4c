"""``python -m examples.monitored_service --stable stable.onnx [--canary canary.onnx]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from examples.monitored_service.app import create_app
from examples.monitored_service.service import Config

LAME_DUCK_S = 1.0
"""Between SIGTERM and the end of accepting: not ready any more, still answering, connections end with their answer."""
GRACE_S = 20
"""For requests that still run after that."""


class Server(uvicorn.Server):
    """Stops in two steps, so that no connection that was accepted goes unanswered."""

    app: Any

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second one does not wait."""
        if self.app.state.is_stopping or not self.started:
            super().handle_exit(sig, frame)
            return
        self.app.state.is_stopping = True
        logging.getLogger("monitored_service").info("stopping in %.1f s", LAME_DUCK_S)
        self._loop.call_soon_threadsafe(self._loop.call_later, LAME_DUCK_S, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        """As usual; the loop is where a signal leaves its order."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)


def parse(arguments: list[str] | None = None) -> tuple[Config, str, int]:
    """The configuration, host and port."""
    parser = argparse.ArgumentParser(prog="python -m examples.monitored_service", description=__doc__)
    parser.add_argument("--stable", type=Path, required=True, help="model in use: FP32 or FP16")
    parser.add_argument("--canary", type=Path, help="model of the new version")
    parser.add_argument("--share", type=float, default=0.1, help="of the users that get the new version")
    parser.add_argument("--max-faults", type=int, default=5, help="unusable answers that take the new version out")
    parser.add_argument("--sampling", type=float, default=0.01, help="share of requests that are profiled")
    parser.add_argument("--iterations", type=int, default=67, help="profiled inferences in a session")
    parser.add_argument("--baselines", type=Path, help="folder of baselines")
    parser.add_argument("--max-waiting", type=int, default=64, help="requests that are taken in at a time")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    found = vars(parser.parse_args(arguments))
    host, port = found.pop("host"), found.pop("port")
    # a secret has no business among the arguments, which every user of the machine can read
    return Config(**found, admin_token=os.environ.get("TRTGRAY_ADMIN_TOKEN", "")), host, port


def main() -> None:
    """Serve until a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config, host, port = parse()
    app = create_app(config)
    server = Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=30,
            backlog=256,
            limit_concurrency=16 * config.max_waiting,
            access_log=False,
            log_config=None,
        )
    )
    server.app = app
    server.run()


if __name__ == "__main__":
    main()
