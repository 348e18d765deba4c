"""Coverage-guided fuzzing of the reader of logs: ``python tests/fuzz/fuzz_reader.py [SECONDS]``, with ``atheris``.

No input may make it raise anything but :class:`LogError`, or give more text than there was. Real logs are the seeds.
An input that breaks this is left in the current folder.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["pytest_trtgray.logs"]):
    from pytest_trtgray.errors import LogError
    from pytest_trtgray.logs import source
    from pytest_trtgray.logs.diagnosis import diagnose
    from pytest_trtgray.logs.log import read

MAX_INPUT = 1_500
source.BLOCK_BYTES = 256  # so that inputs have several blocks


def check(content: bytes) -> None:
    try:
        log = read(io.BytesIO(content))
    except LogError:
        return
    size = sum(len(record.prefix) + len(record.message) for record in log.records)
    if content[:2] not in (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff"):
        assert size <= len(content) + 64, f"{size} characters of {len(content)} bytes"
    assert log.messages == len(log.records)
    json.dumps([event.to_dict() for event in log.events], allow_nan=False)
    diagnose(log.records, log.events)


def main() -> None:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "300"
    with tempfile.TemporaryDirectory() as folder:
        for path in (ROOT / "tests" / "data" / "logs").glob("*.log*"):
            stored = path.read_bytes()
            content = gzip.decompress(stored) if path.suffix == ".gz" else stored
            (Path(folder) / path.stem).write_bytes(content[:MAX_INPUT])
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", "-timeout=20", "-rss_limit_mb=1024"]
        atheris.Setup([sys.argv[0], *options, folder], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
