"""The HTTP side: routes, limits, readiness."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.monitored_service.rollout import STABLE
from examples.monitored_service.service import Config, Service
from pytest_trtgray.errors import EngineError, ShapeError

RETRY_AFTER_S = 1
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
    """Refuses a body that is too long: by its length where that is told, else while it arrives.

    Args:
        app: that gets all others.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self._most:
            await self._refusal()(scope, receive, send)
            return
        messages, size = [], 0
        while True:  # what is let through is small enough to be kept whole
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                await self._refusal()(scope, receive, send)
                return
            if not message.get("more_body", False):
                break

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)

    def _refusal(self) -> Response:
        return JSONResponse({"detail": f"the body may have {self._most} bytes"}, 413, {"Connection": "close"})


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

    @app.middleware("http")
    async def close_while_stopping(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        if app.state.is_stopping:  # clients go elsewhere for their next request
            response.headers["Connection"] = "close"
        return response

    @app.exception_handler(422)
    async def invalid(request: Request, error: Exception) -> Response:
        service.requests.rejected(STABLE, "invalid")
        return JSONResponse({"detail": str(error)}, 422)

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
