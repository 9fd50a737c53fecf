"""A real service delivers to tasks that are mounted in real servers."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from app.delivery.webhook.signing import new_secret, sign
from sluice_client.context import Context
from sluice_client.outcomes import Fatal, Retry, Skip
from sluice_client.serving.asgi import AsgiApp
from sluice_client.serving.deliveries import GROUP_TYPE
from sluice_client.serving.django import django_view
from sluice_client.serving.push import Push
from sluice_client.serving.wsgi import WsgiApp
from sluice_client.tasks.calls import Call
from sluice_client.tasks.failures import error_of
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport
from tests.sdk.serving import urls
from tests.sdk.serving.mounts import SECRET, asgi_server, declare, push, queue_to, wsgi_server
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh

OLD = new_secret()
pytestmark = [pytest.mark.anyio, pytest.mark.ci]


def ready_in(task: dict[str, Any]) -> float:
    """How many seconds from now it runs again."""
    return (datetime.fromisoformat(task["run_at"]) - datetime.now(UTC)).total_seconds()


Server = Callable[[Push], AbstractAsyncContextManager[str]]


def fastapi(push: Push) -> AbstractAsyncContextManager[str]:
    app = FastAPI()
    app.mount("/tasks", AsgiApp(push))
    return asgi_server(app)


def starlette(push: Push) -> AbstractAsyncContextManager[str]:
    return asgi_server(Starlette(routes=[Mount("/tasks", AsgiApp(push))]))


def flask(push: Push) -> AbstractAsyncContextManager[str]:
    app = Flask("test")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/tasks": WsgiApp(push)})  # type: ignore[method-assign]
    return wsgi_server(app)


def django_wsgi(push: Push) -> AbstractAsyncContextManager[str]:
    from django.core.wsgi import get_wsgi_application

    site(push)
    return wsgi_server(get_wsgi_application())


def django_asgi(push: Push) -> AbstractAsyncContextManager[str]:
    from django.core.asgi import get_asgi_application

    site(push)
    return asgi_server(get_asgi_application(), lifespan="off")


def site(push: Push) -> None:
    """A Django project in this module: its one URL is the view."""
    import django
    from django.conf import settings
    from django.urls import clear_url_caches, path

    if not settings.configured:
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True}}
        middleware = ["django.middleware.csrf.CsrfViewMiddleware"]
        settings.configure(
            ROOT_URLCONF="tests.sdk.serving.urls", DATABASES=databases, MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"]
        )
        django.setup()
    urls.urlpatterns[:] = [path("tasks/", django_view(push))]
    clear_url_caches()


@pytest.fixture(params=[fastapi, starlette, flask, django_wsgi, django_asgi])
def server(request: pytest.FixtureRequest) -> Server:
    return request.param


async def test_a_mount_runs_tasks_and_answers_with_their_outcomes(
    server: Server, api: Api, registry: Registry, transport: Transport
) -> None:
    queue = fresh("q")

    async def add(a: int, b: int) -> int:
        return a + b

    def shout(text: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        context = Context.current()
        assert context is not None
        return f"{text.upper()} in {context.queue}, {context.attempt} of {context.max_attempts}"

    async def fails(text: str) -> None:
        raise ValueError(text)

    async def ends(text: str) -> None:
        raise Fatal(text)

    async def skips(text: str) -> None:
        raise Skip(text)

    for function in (add, shout, fails, ends, skips):
        declare(registry, function, queue)
    async with server(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue)

        async def ended(kind: str, **payload: Any) -> dict[str, Any]:
            task = await api.enqueue(queue, payload, type=kind, retry={"max_attempts": 2, **AT_ONCE})
            return await api.ended(task["id"])

        async def excerpt(task: dict[str, Any]) -> str:
            return (await api.attempts(task["id"]))[0]["excerpt"]

        task = await ended("add", a=1, b=2)
        assert (task["state"], task["result"]) == ("succeeded", 3)
        task = await ended("shout", text="hello")
        assert task["result"] == f"HELLO in {queue}, 1 of 2"
        task = await ended("fails", text="no such page")
        assert (task["reason"], task["attempt"]) == ("attempts_exhausted", 2)
        assert await excerpt(task) == '{"error":"ValueError: no such page"}'
        task = await ended("ends", text="bad address")
        assert (task["reason"], task["attempt"]) == ("stopped_by_handler", 1)
        assert await excerpt(task) == '{"error":"bad address"}'
        [attempt] = await api.attempts(task["id"])
        assert error_of(attempt) == "bad address", "not only that the handler answered 422"
        assert error_of(attempt | {"excerpt": '["bad'}) == attempt["error"]
        task = await ended("skips", text="sold")
        assert (task["state"], task["result"]) == ("succeeded", {"skipped": "sold"})
        task = await ended("add", a="one", b=2)
        assert (task["reason"], task["attempt"]) == ("stopped_by_handler", 1)
        assert '"pointer":"/a"' in await excerpt(task)
        task = await api.until((await api.enqueue(queue, type="unheard of"))["id"], "scheduled")
        assert "no task named 'unheard of'" in await excerpt(task)
        assert ready_in(task) > 50, "a deployment that knows it may be under way"


async def test_a_task_that_holds_goes_on_after_its_call_and_reports_by_its_lease(
    server: Server, api: Api, registry: Registry, transport: Transport
) -> None:
    queue, go_on = fresh("q"), threading.Event()

    async def render(pages: int, *, ctx: Context) -> str:
        ctx.hold(30)
        ctx.progress(0.4, "page 3")
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return f"{pages} pages"

    declare(registry, render, queue)
    async with server(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue, timeout_seconds=2)
        task = await api.enqueue(queue, {"pages": 7})
        await api.until(task["id"], "running", progress={"done": 0.4, "note": "page 3"})

        async def held() -> bool:
            return (await api.attempts(task["id"]))[0]["outcome"] == "held"

        await poll(held)
        go_on.set()
        task = await api.ended(task["id"])
        assert (task["state"], task["result"], task["attempt"]) == ("succeeded", "7 pages", 1)


async def test_a_held_task_that_is_cancelled_is_cancelled_here(
    api: Api, registry: Registry, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, ended = fresh("q"), asyncio.Event()

    async def render(*, ctx: Context) -> None:
        ctx.hold(3)
        try:
            await asyncio.sleep(60)
        finally:
            assert ctx.cancelled
            ended.set()

    declare(registry, render, queue)
    async with starlette(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue)
        task = await api.enqueue(queue, {})

        async def held() -> bool:
            attempts = await api.attempts(task["id"])
            return bool(attempts) and attempts[0]["outcome"] == "held"

        await poll(held)
        await api.cancel(task["id"])
        await asyncio.wait_for(ended.wait(), 10)


async def test_follow_ups_a_continuation_and_on_complete_come_with_the_answer(
    server: Server, api: Api, registry: Registry, transport: Transport
) -> None:
    queue, closing, seen = fresh("q"), fresh("q"), []

    async def statement(customer: int) -> None:
        seen.append(customer)

    async def close(month: str, *, ctx: Context) -> str | None:
        return ctx.batch

    declare(registry, statement, queue)
    declare(registry, close, closing)
    statements, closed = (registry.find(name) for name in ("statement", "close"))
    assert statements is not None and closed is not None

    async def customers(month: str, *, ctx: Context) -> int:
        first = int(ctx.cursor or 0)
        for customer in range(first, first + 2):
            ctx.follow_up(Call(statements, statements.bind(customer)))
        if first < 4:
            ctx.next(str(first + 2))
        ctx.on_complete(Call(closed, closed.bind(month)))
        return first

    declare(registry, customers, queue)
    async with server(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue)
        await queue_to(api, f"{url}/tasks/", closing)
        root = await api.enqueue(queue, {"month": "2026-11"}, type="customers")

        async def completed() -> bool:
            tasks = await api.pages("/tasks", queue=closing)
            return [task["state"] for task in tasks] == ["succeeded"]

        await poll(completed)
        (last,) = await api.pages("/tasks", queue=closing)
        assert last["result"] == root["id"]
        assert sorted(seen) == [0, 1, 2, 3, 4, 5]


async def test_a_group_is_answered_task_by_task(
    server: Server, api: Api, registry: Registry, transport: Transport
) -> None:
    queue = fresh("q")

    async def book(amount: int, *, ctx: Context) -> int:
        if amount == 3:
            raise Fatal("no such account")
        if amount == 4:
            raise Retry("locked", after=100)
        return amount * 10

    declare(registry, book, queue)
    async with server(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue, group={"max_tasks": 10, "wait_seconds": 5})
        given: list[Any] = [1, 2, 3, 4, "five", 6, 7, 8, 9, 10]
        tasks = await api.bulk(queue, [{"payload": {"amount": amount}, "type": "book"} for amount in given])

        async def settled() -> bool:
            return all([(await api.attempts(task))[:1] and (await api.attempts(task))[0]["outcome"] for task in tasks])

        await poll(settled)
        found = {amount: await api.task(task) for amount, task in zip(given, tasks, strict=True)}
        assert all(found[amount]["result"] == amount * 10 for amount in given if amount not in (3, 4, "five"))
        assert (found[3]["state"], found[3]["last_error"]) == ("dead", "no such account")
        assert (found[4]["state"], found[4]["last_error"]) == ("scheduled", "locked") and ready_in(found[4]) > 80
        assert found["five"]["state"] == "dead" and "/amount" in found["five"]["last_error"]


async def test_a_group_of_which_one_holds_is_held_and_each_reports_by_its_lease(
    api: Api, registry: Registry, transport: Transport
) -> None:
    queue, go_on = fresh("q"), asyncio.Event()

    async def book(amount: int, *, ctx: Context) -> int:
        if amount == 1:
            ctx.hold(30)
            await go_on.wait()
        if amount == 2:
            raise Fatal("no such account")
        return amount

    declare(registry, book, queue)
    async with starlette(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue, group={"max_tasks": 3, "wait_seconds": 5})
        held, failed, done = await api.bulk(queue, [{"payload": {"amount": n}} for n in (1, 2, 3)])
        assert (await api.ended(failed))["last_error"] == "no such account"
        assert (await api.ended(done))["result"] == 3
        assert (await api.attempts(held))[0]["outcome"] == "held"
        go_on.set()
        assert (await api.ended(held))["result"] == 1


async def test_a_task_whose_call_is_hung_up_is_cancelled(api: Api, registry: Registry, transport: Transport) -> None:
    """A service that hangs up has given up on the attempt, and may be making the next one."""
    queue, begun, ended = fresh("q"), asyncio.Event(), asyncio.Event()

    async def render(*, ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            assert ctx.cancelled
            ended.set()

    declare(registry, render, queue)
    async with starlette(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue)
        task = await api.enqueue(queue, {})
        await begun.wait()
        await api.cancel(task["id"])
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_task_ends_at_its_deadline_even_where_nobody_hears_of_a_hang_up(
    api: Api, registry: Registry, transport: Transport
) -> None:
    queue, ended = fresh("q"), threading.Event()

    async def render() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    declare(registry, render, queue)
    async with flask(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue, timeout_seconds=1)
        await api.enqueue(queue, {}, retry={"max_attempts": 1})
        assert await asyncio.to_thread(ended.wait, 10)


TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


async def test_context_variables_of_the_request_reach_the_task(
    api: Api, registry: Registry, transport: Transport
) -> None:
    queue = fresh("q")

    async def who() -> str:
        return TENANT.get()

    def who_in_a_thread() -> str:
        return TENANT.get()

    for function in (who, who_in_a_thread):
        declare(registry, function, queue)
    mounted = AsgiApp(push(registry, transport))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        TENANT.set("ada")
        await mounted(scope, receive, send)

    async with asgi_server(app) as url:
        await queue_to(api, url, queue)
        for name in ("who", "who_in_a_thread"):
            task = await api.enqueue(queue, {}, type=name)
            assert (await api.ended(task["id"]))["result"] == "ada"


async def test_nothing_runs_that_sluice_has_not_signed(
    server: Server, registry: Registry, transport: Transport
) -> None:
    """Forged, replayed, oversized, malformed: each is refused, and the mount goes on."""
    ran = []
    item: dict[str, Any] = {"id": "id-1", "type": "add", "attempt": 1, "max_attempts": 3, "lease_token": "t"}
    item |= {"headers": {}, "payload": {"n": 1}, "correlation_id": "c"}

    async def add(n: int) -> int:
        ran.append(n)
        return n

    declare(registry, add, "q")
    async with server(push(registry, transport, SECRET, OLD, largest=1000)) as url, httpx2.AsyncClient() as client:

        async def answers(status: int, body: bytes = b'{"n": 1}', *, method: str = "POST", **changed: Any) -> None:
            headers = {
                "content-type": "application/json",
                "sluice-type": "add",
                "sluice-attempt": "1",
                "sluice-max-attempts": "3",
                **signed(body, changed.pop("secret", SECRET), changed.pop("age", 0)),
                **{name.replace("_", "-"): value for name, value in changed.items()},
            }
            reply = await client.request(method, f"{url}/tasks/", content=body, headers=headers)
            assert reply.status_code == status, reply.text

        await answers(401, secret=new_secret())
        await answers(401, webhook_id="another")
        await answers(401, webhook_signature="v1,")
        await answers(401, webhook_timestamp="soon")
        await answers(401, age=400)
        await answers(401, age=-400)
        await answers(413, b'{"n": 1}' + b" " * 1000)
        await answers(405, method="GET")
        await answers(405, method="PUT")
        await answers(400, b'{"n": 1')
        await answers(400, b"{}", content_type=GROUP_TYPE)
        groups: list[Any] = [[], {}, [7], [item | {"type": ["add"]}], [item | {"id": {}}]]
        for tasks in groups:
            await answers(400, json.dumps({"tasks": tasks}).encode(), content_type=GROUP_TYPE)
        await answers(400, sluice_attempt="first")
        await answers(400, sluice_attempt="9" * 5000)
        await answers(400, sluice_deadline="soon")
        await answers(400, sluice_scheduled_for="never")
        await answers(404, sluice_type="sub")
        assert (await client.post(f"{url}/tasks/", content=b"{}")).status_code == 401
        assert not ran
        await answers(200, secret=OLD)
        await answers(200, age=200)
        await answers(200, json.dumps({"tasks": [item]}).encode(), content_type=GROUP_TYPE)
        assert ran == [1, 1, 1]


async def test_a_body_without_a_length_is_bounded_too(registry: Registry, transport: Transport) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1000

    async with starlette(push(registry, transport, largest=10_000)) as url, httpx2.AsyncClient() as client:
        with suppress(httpx2.WriteError, httpx2.ReadError):  # the server may close before it is read
            reply = await client.post(f"{url}/tasks/", content=endless(), headers=signed(b"", SECRET))
            assert reply.status_code == 413
        assert (await client.get(f"{url}/tasks/")).status_code == 405


async def test_a_task_that_ends_its_process_does_not_take_the_others_along(
    api: Api, registry: Registry, transport: Transport
) -> None:
    """Under WSGI all async tasks share one event loop, which must outlive them."""
    queue = fresh("q")

    async def exits() -> None:
        raise SystemExit(3)

    async def works() -> str:
        return "still here"

    declare(registry, exits, queue)
    declare(registry, works, queue)
    async with flask(push(registry, transport)) as url:
        await queue_to(api, f"{url}/tasks/", queue)
        broken = await api.enqueue(queue, {}, type="exits", retry={"max_attempts": 1})
        assert (await api.ended(broken["id"]))["state"] == "dead"
        task = await api.enqueue(queue, {}, type="works")
        assert (await api.ended(task["id"]))["result"] == "still here"


def signed(body: bytes, secret: str, age: float = 0) -> dict[str, str]:
    at = int(time.time() - age)
    signature = sign([secret], "id-1", at, body)
    return {"webhook-id": "id-1", "webhook-timestamp": str(at), "webhook-signature": signature}
