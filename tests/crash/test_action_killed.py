"""An action goes on when the replica that works on it is killed, and acts on each task once."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

TASKS = 600


@contextlib.asynccontextmanager
async def moves_noted(database_url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """Each task that comes back is a row of public.moves meanwhile. Tests of other files share the tables."""
    watcher = await asyncpg.connect(database_url)
    await watcher.execute(
        "create table public.moves (task_id uuid);"
        "create function public.note() returns trigger language plpgsql as"
        " $$ begin insert into public.moves values (new.id); return new; end $$;"
        "create trigger note before insert on sluice.tasks for each row execute function public.note();"
    )
    try:
        yield watcher
    finally:
        await watcher.execute("drop function public.note() cascade; drop table public.moves")
        await watcher.close()


async def test_another_replica_ends_what_a_killed_one_has_begun(
    database_url: str,
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    """Every redrive raises a counter in the payload's place: a trigger counts how often each task comes back."""
    doomed = await start_sluice()
    api = Api(doomed.client, doomed.url)
    queue = await api.queue()
    await api.bulk(queue, [{"payload": n} for n in range(TASKS)])
    good(await api.post(f"/queues/{queue}/purge"), 202)
    async with moves_noted(database_url) as watcher:
        body = {"kind": "retry", "filter": {"queue": queue}, "rate_per_second": 200}
        action = good(await doomed.client.post("/actions", json=body), 202)
        assert action["matched"] == TASKS

        async def moved() -> int:
            return int(await watcher.fetchval("select count(*) from public.moves"))

        async def begun() -> bool:
            return await moved() > 0

        await poll(begun)
        await doomed.kill()
        assert 0 < await moved() < TASKS

        replica = await start_replica()
        api = Api(replica.client, replica.url)

        async def ended() -> dict[str, Any] | None:
            found = good(await api.get(f"/actions/{action['id']}"))
            return found if found["state"] == "done" else None

        done = await poll(ended)
        assert done is not None and (done["done"], done["refused"], done["failed"]) == (TASKS, 0, 0)
        assert await watcher.fetchval("select count(distinct task_id) from public.moves") == TASKS == await moved()
        assert await watcher.fetchval("select count(*) from sluice.action_tasks") == 0
