"""A tenant has so many queues, handlers, limits and schedules and no more, however many are made at once, on whichever replica."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.definitions import Document
from app.domain.errors import Refusal
from app.domain.handlers import HandlerDefinition
from app.domain.limits import LimitDefinition
from app.domain.queues import QueueDefinition
from app.domain.schedules.bodies import parse_schedule
from app.runtime.core import Core
from app.service import definitions, handlers, limits, queues, schedules

pytestmark = pytest.mark.anyio

MOST = 3
MANY = 8
EVERY_DAY = parse_schedule(b'{"queue": "q0", "payload": 1, "every_seconds": 86400}', 1000)

Put = Callable[[Core, Caller, str], Awaitable[Any]]
KINDS: dict[str, tuple[Put, Callable[..., Awaitable[None]]]] = {
    "handlers": (
        lambda core, caller, name: handlers.put(core, caller, name, HandlerDefinition("https://a.test/"), None, ANY),
        handlers.delete,
    ),
    "queues": (lambda core, caller, name: queues.put(core, caller, name, QueueDefinition(), ANY), queues.delete),
    "limits": (lambda core, caller, name: limits.put(core, caller, name, LimitDefinition(), ANY), limits.delete),
    "schedules": (lambda core, caller, name: schedules.put(core, caller, name, EVERY_DAY, ANY), schedules.delete),
}


@pytest.fixture
async def cores(start_core: Callable[[], Awaitable[Core]], caller: Caller) -> list[Core]:
    """Two replicas, and a queue for schedules."""
    made = [await start_core() for _ in range(2)]
    await queues.put(made[0], caller, "q0", QueueDefinition(), ANY)
    for core in made:
        core.max_definitions = MOST
    return made


@pytest.mark.parametrize("kind", KINDS)
async def test_of_many_that_are_made_at_once_so_many_come_to_be(cores: list[Core], caller: Caller, kind: str) -> None:
    put, delete = KINDS[kind]
    names = [f"{kind[0]}{n}" for n in range(MANY)]
    made = await asyncio.gather(
        *(put(cores[n % 2], caller, name) for n, name in enumerate(names)), return_exceptions=True
    )
    refused = [one for one in made if isinstance(one, Refusal)]
    there = [name for name, one in zip(names, made, strict=True) if not isinstance(one, BaseException)]
    assert len(there) == MOST and len(refused) == MANY - MOST
    assert {refusal.code for refusal in refused} == {"invalid"}
    assert all(f"already has {MOST} {kind}, the most allowed" in refusal.detail for refusal in refused)
    assert not (await put(cores[0], caller, there[0])).created
    cores[0].max_definitions = 1  # lowered: what is there stays, and can be replaced
    assert not (await put(cores[0], caller, there[1])).created
    cores[0].max_definitions = MOST
    (row,) = await cores[0].db.fetch("insert into sluice.tenants (name) values ('other') returning id")
    other = Caller(row["id"], "other", "manage")
    await queues.put(cores[0], other, "q0", QueueDefinition(), ANY)
    assert (await put(cores[0], other, names[1])).created
    last = next(name for name in reversed(there) if name != "q0")
    await delete(cores[1], caller, last, ANY)
    absent = next(name for name in names if name not in there)
    assert (await put(cores[1], caller, absent)).created
    with pytest.raises(Refusal, match="the most allowed"):
        await put(cores[0], caller, last)


async def test_one_name_that_is_made_at_once_in_the_last_place_is_made_once(cores: list[Core], caller: Caller) -> None:
    for kind, (put, _) in KINDS.items():
        for n in range(MOST - 1):
            await put(cores[0], caller, f"{kind[0]}{n}")
        saved = await asyncio.gather(*(put(cores[n % 2], caller, f"{kind[0]}9") for n in range(MANY)))
        assert sum(one.created for one in saved) == 1


async def test_a_document_with_too_many_is_refused_as_a_whole(cores: list[Core], caller: Caller) -> None:
    core = cores[0]
    wanted = {f"d{n}": QueueDefinition() for n in range(MOST)}
    with pytest.raises(Refusal) as refused:
        await definitions.apply(core, caller, Document(handlers=None, queues=wanted, schedules=None), None)
    assert refused.value.code == "invalid" and [error.pointer for error in refused.value.errors] == ["/queues"]
    assert await core.db.fetchval("select count(*) from sluice.queues") == 1
    del wanted["d0"]
    await definitions.apply(core, caller, Document(handlers=None, queues=wanted, schedules=None), None)
    core.max_definitions = 1
    await definitions.apply(core, caller, Document(handlers=None, queues=wanted, schedules=None), None)
