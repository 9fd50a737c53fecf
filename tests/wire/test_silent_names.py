"""Handlers whose names lead nowhere: what they take from other tenants, and what their tenant is told."""

import asyncio
from typing import Any

import pytest

from app.delivery.webhook import lookups
from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

SILENT = 100
AT_ONCE = {"backoff": {"kind": "fixed", "seconds": 1}}


async def names(replica: Replica, answers: dict[str, str], until: asyncio.Event | None = None) -> list[str]:
    """From now on these names lead to these addresses, and the servers of all others are silent, for ever or until the event:
    then they know nothing. What is asked for."""
    asked: list[str] = []
    silence = until or asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host not in answers:
            await silence.wait()
            raise OSError("no such name")
        return [answers[host]]

    replica.sluice.core.delivery.webhooks._egress._lookups._resolver = resolve
    return asked


async def test_silent_names_of_one_tenant_keep_no_delivery_of_another(
    two: tuple[Replica, Api, Api], handler: Handler
) -> None:
    replica, a, b = two
    asked = await names(replica, {"healthy.example": "127.0.0.1"})
    handlers = [await a.handler(f"http://a{n}.silent.example/") for n in range(SILENT)]
    theirs = await a.queue(handlers[0], retry=AT_ONCE)
    for name in handlers:
        await a.enqueue(theirs, handler=name)
    await poll(lambda: len(asked) == lookups.TENANT_PLACES)
    queue = await b.queue_to(handler.url.replace("127.0.0.1", "healthy.example"))
    for _ in range(3):
        task = await b.until((await b.enqueue(queue))["id"], "succeeded")
        assert task["attempt"] == 1
    assert len(asked) == lookups.TENANT_PLACES + 1


@pytest.mark.parametrize("internal", ["10.20.30.40", "169.254.169.254"])
async def test_a_tenant_learns_no_internal_address(
    two: tuple[Replica, Api, Api], internal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replica, a, _ = two
    await names(replica, {"inside.example": internal})
    name = await a.handler("http://inside.example/")
    told: list[Any] = [good(await a.post(f"/handlers/{name}/test"))]
    queue = await a.queue(name, retry={"max_attempts": 1})
    task = await a.enqueue(queue)
    told += [await a.until(task["id"], "dead"), await a.attempts(task["id"])]
    assert told[0]["outcome"] == told[2][0]["outcome"] == "egress_denied"
    assert told[1]["last_error"] == "inside.example resolves to an address that is not allowed"
    assert internal not in str(told)
    assert internal in capsys.readouterr().out


async def test_a_tenant_does_not_learn_where_an_allowed_name_leads(two: tuple[Replica, Api, Api]) -> None:
    replica, a, _ = two
    await names(replica, {"allowed.example": "127.0.0.77"})
    queue = await a.queue_to("http://allowed.example:9/", retry={"max_attempts": 1})
    task = await a.until((await a.enqueue(queue))["id"], "dead")
    assert task["last_error"] == "could not connect to allowed.example:9: Connection refused"


async def test_a_literal_that_may_not_be_called_is_refused_when_it_is_saved(two: tuple[Replica, Api, Api]) -> None:
    _, a, _ = two
    problem(await a.put("/handlers/h", json={"url": "http://10.0.0.1/"}), 422, "egress_denied", "/url")


async def test_tests_of_handlers_that_hang_leave_room_for_those_of_another_tenant(
    two: tuple[Replica, Api, Api], handler: Handler
) -> None:
    replica, a, b = two
    turns = replica.sluice.core.handler_tests
    over = asyncio.Event()
    await names(replica, {}, over)
    hanging = await a.handler("http://a.silent.example/", timeout_seconds=60)
    asking = [asyncio.create_task(a.post(f"/handlers/{hanging}/test")) for _ in range(40)]
    refused = await poll(lambda: [task for task in asking if task.done()])
    problem(refused[0].result(), 503, "unavailable")
    assert turns.taken == 16
    name = await b.handler(handler.url)
    assert good(await b.post(f"/handlers/{name}/test"))["outcome"] == "succeeded"
    over.set()
    await asyncio.gather(*asking)
