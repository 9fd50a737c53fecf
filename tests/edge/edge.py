"""An edge over services that only note what they were asked: what stands between the wire and them is tested here."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import msgspec
import pytest

from app.api.app import create_app
from app.domain.callers import SCOPES, Caller
from app.domain.errors import Refusal
from app.domain.handlers import HandlerDefinition, HandlerView
from app.domain.queues import QueueDefinition, QueueView
from app.edge.asgi import Edge
from app.edge.config import EdgeConfig
from app.runtime.core import Core
from app.service import handlers, limits, queues, tasks, tenant_limits
from app.service.tasks import Enqueued

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
TASK_ID = "019aa893-0a00-7238-9930-16b5add0f344"
KEYS = {f"slk_{scope}": Caller(1, "acme", scope) for scope in SCOPES}


@dataclass
class Operations:
    live: str | None = None
    ready: str | None = None

    def why_not_live(self) -> str | None:
        return self.live

    def why_not_ready(self) -> str | None:
        return self.ready

    async def status(self) -> dict[str, Any]:
        return {"version": "1", "replicas": [], "queues": [], "schedules": [], "database": {}, "alarms": []}

    async def metrics(self) -> bytes:
        return b"sluice_loop_lag_seconds 0\n"


async def authenticate(token: str) -> Caller:
    if token not in KEYS:
        raise Refusal("unauthenticated", "unknown key")
    return KEYS[token]


async def anonymous() -> Caller:
    return Caller(1, "default", "operate")


@dataclass
class Services:
    """The calls that arrived, and what the next one answers: a value, or an exception to raise."""

    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (handlers, queues, limits, tenant_limits, tasks):
            noun = module.__name__.rpartition(".")[2]
            for verb in ("put", "get", "list_page", "delete", "enable", "disable", "pause", "resume", "rotate_secret"):
                self._stand_in(monkeypatch, module, noun, verb)
            for verb in ("test", "stats", "enqueue", "attempts", "cancel", "retry"):
                self._stand_in(monkeypatch, module, noun, verb)

    def _stand_in(self, monkeypatch: pytest.MonkeyPatch, module: Any, noun: str, verb: str) -> None:
        if not hasattr(module, verb):
            return

        async def noted(_core: Core, *args: Any) -> Any:
            self.calls.append((f"{noun}.{verb}", args))
            answer = self.answers.get(f"{noun}.{verb}")
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(module, verb, noted)

    @property
    def last(self) -> tuple[Any, ...]:
        """What the last call was given after the core."""
        return self.calls[-1][1]


def edge(*, auth: bool = True, **config: Any) -> Edge:
    core = cast(Core, SimpleNamespace(max_payload_bytes=config.get("max_payload_bytes", 1_048_576)))
    settings: dict[str, Any] = {"operations": Operations(), "authenticate": authenticate, "public_url": "http://sluice"}
    app = create_app(core, EdgeConfig(**{**settings, "anonymous": None if auth else anonymous, **config}))
    app.application.state.audited = {}  # what the edge refuses is recorded by services that are not here
    return app


def client(app: Edge, key: str | None = "slk_operate", base_url: str = "http://localhost:8080") -> httpx2.AsyncClient:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=base_url, headers=headers)


def created(body: bytes = b'{"id":"x"}') -> Enqueued:
    return Enqueued(True, TASK_ID, body)


def assert_problem(reply: httpx2.Response, status: int, code: str, *pointers: str) -> dict[str, Any]:
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["status"] == status
    assert set(problem) == {"type", "title", "status", "code", "detail", "errors"}
    if pointers:
        assert [error["pointer"] for error in problem["errors"]] == list(pointers)
    return problem


def handler_view(name: str = "h", **changes: Any) -> HandlerView:
    return HandlerView(name, HandlerDefinition("http://a/", headers={"x-key": "secret"}), NOW, NOW, **changes)


def queue_view(name: str = "q", **changes: Any) -> QueueView:
    return QueueView(name, QueueDefinition(handler="h"), NOW, NOW, **changes)


class Item(msgspec.Struct):
    """Enough of a task or an attempt for a page."""

    id: str = TASK_ID
    number: int = 1
    payload: msgspec.Raw = msgspec.Raw(b"{ }")
