"""The HTTP side: routes, limits, readiness."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.monitored_service.rollout import STABLE
from examples.monitored_service.service import Config, Service
from pytest_trtgray.errors import EngineError, ShapeError

RETRY_AFTER_S = 1
BODY_S = 10.0
"""In which a body has to arrive."""
MAX_FEATURES = 4096

Row = Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_FEATURES)]


class Question(BaseModel):
    """A request: some rows for one user."""

    model_config = ConfigDict(extra="forbid")

    user_id: Annotated[str, Field(min_length=1, max_length=200)]
    rows: Annotated[list[Row], Field(min_length=1)]


class Reply(BaseModel):
    """The answer: a row of logits for each row, and which version gave it."""

    logits: list[list[float]]
    version: str
    fallback: bool


class Order(BaseModel):
    """What an operator wants of the new version."""

    action: Literal["promote", "withdraw"]


class BodyLimit:
    """Refuses a body that is too long, by its length where that is told, else while it arrives, or too slow.

    Args:
        app: that gets all others.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        messages: list[Message] | None = None
        status, reason = 413, f"the body may have {self._most} bytes"
        if told.isdigit() and int(told) <= self._most:
            try:
                messages = await asyncio.wait_for(self._whole(receive), BODY_S)
            except asyncio.TimeoutError:
                status, reason = 408, f"the body did not arrive within {BODY_S:.0f} s"
        if messages is None:
            refusal = JSONResponse({"detail": reason}, status, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        waiting = iter(messages)

        async def replay() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replay, send)

    async def _whole(self, receive: Receive) -> list[Message] | None:
        """What is let through is small enough to be kept; ``None`` if it is not."""
        messages: list[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if size > self._most:
                return None
        return messages


class LastAnswers:
    """While the process stops, every connection ends with its answer: clients go elsewhere for their next request.

    Args:
        app: that answers.
        is_stopping: tells whether it stops.
    """

    def __init__(self, app: ASGIApp, is_stopping: Callable[[], bool]) -> None:
        self._app = app
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_stopping():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, last)


def create_app(config: Config) -> FastAPI:
    """The service as an ASGI application; ``app.state.service`` is what it serves."""
    service = Service(config)
    waiting = 0

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # beside the first requests: the process is live at once, and ready when it is
        loading = asyncio.create_task(asyncio.to_thread(service.start))
        yield
        await loading
        await asyncio.to_thread(service.close)

    app = FastAPI(title="monitored service", lifespan=lifespan)
    app.state.service = service
    app.state.is_stopping = False
    app.add_middleware(BodyLimit, most=config.max_body_bytes)

    app.add_middleware(LastAnswers, is_stopping=lambda: app.state.is_stopping)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        service.requests.rejected(STABLE, "invalid")
        # without the input: it may be long, and hold numbers that JSON does not know
        where = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()[:10]]
        return JSONResponse({"detail": where}, 422)

    def unavailable(reason: str) -> HTTPException:
        service.requests.rejected(STABLE, "refused")
        return HTTPException(503, reason, {"Retry-After": str(RETRY_AFTER_S)})

    @app.post("/predict")
    async def predict(question: Question) -> Reply:
        nonlocal waiting
        if not service.is_ready:
            raise unavailable("not ready")
        if waiting >= config.max_waiting:
            raise unavailable("too many requests are waiting")
        rows = _rows(question, config.max_rows, service)
        waiting += 1
        service.requests.waiting(waiting)
        started = time.perf_counter()
        try:
            answer = await service.predict(question.user_id, rows)
        except ShapeError as error:
            service.requests.rejected(STABLE, "invalid")
            raise HTTPException(422, error.reason) from error
        except EngineError as error:
            service.requests.rejected(STABLE, "failed")
            raise HTTPException(500, "no version can answer this") from error
        finally:
            waiting -= 1
            service.requests.waiting(waiting)
        is_fallback = answer.version != answer.chosen
        took = time.perf_counter() - started
        service.requests.answered(answer.version, "fallback" if is_fallback else "ok", took)
        return Reply(logits=answer.outputs.tolist(), version=answer.version, fallback=is_fallback)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type=service.metrics.content_type)

    @app.get("/health/live")
    async def live() -> Response:
        return JSONResponse({"live": not service.failure, "reason": service.failure}, 503 if service.failure else 200)

    @app.get("/health/ready")
    async def ready() -> Response:
        is_ready = service.is_ready and not app.state.is_stopping
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return service.summary()

    @app.post("/rollout")
    async def rollout(order: Order, authorization: Annotated[str, Header()] = "") -> dict[str, Any]:
        wanted = f"Bearer {config.admin_token}"
        if not config.admin_token or not secrets.compare_digest(authorization.encode(), wanted.encode()):
            raise HTTPException(403, "needs the token of the operator")
        move = service.promote if order.action == "promote" else service.withdraw
        if not move("an operator said so"):
            raise HTTPException(409, f"there is no canary: {service.rollout.stage}")
        return service.summary()

    return app


def _rows(question: Question, most: int, service: Service) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The rows as an array.

    Raises:
        HTTPException: 422; too many of them, or of another length.
    """
    wrong = ""
    if len(question.rows) > most:
        wrong = f"{len(question.rows)} rows; at most {most} are taken"
    elif any(len(row) != service.features for row in question.rows):
        wrong = f"every row needs {service.features} numbers"
    else:
        with np.errstate(over="ignore"):
            rows = np.array(question.rows, np.float32)
        if np.isfinite(rows).all():
            return rows
        wrong = "a number is too large for FP32"
    service.requests.rejected(STABLE, "invalid")
    raise HTTPException(422, wrong)
