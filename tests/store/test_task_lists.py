"""A page whose look is cut off answers what it has looked at."""

from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import queues
from app.store import task_lists, windows
from app.store.db import Reads
from app.store.failures import TooSlow
from app.store.task_lists import TaskQuery
from tests.cores import enqueue

pytestmark = pytest.mark.anyio


class Tiring:
    """Reads so often, and then takes too long."""

    def __init__(self, reads: Reads, patience: int) -> None:
        self._reads = reads
        self.patience = patience

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        self.patience -= 1
        if self.patience < 0:
            raise TooSlow(5)
        return await self._reads.fetch(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return (await self.fetch(sql, *args))[0][0]


async def test_a_look_that_takes_too_long_ends_the_page_where_it_has_come(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "FIRST_WINDOW", 5)
    monkeypatch.setattr(windows, "MAX_WINDOW", 5)
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    ids = sorted(await enqueue(core, caller, "mail", 12), reverse=True)
    reads = core.db.reads(caller.tenant_id)
    query = TaskQuery(caller.tenant_id, None, None, limit=3, include_payload=False, type="nosuch")
    page = await task_lists.list_page(Tiring(reads, 2), core.vault, query)
    assert (page.items, page.position) == ([], ids[9])
    page = await task_lists.list_page(Tiring(reads, 99), core.vault, query)
    assert (page.items, page.position) == ([], None)
    with pytest.raises(TooSlow, match="longer than 5"):
        await task_lists.list_page(Tiring(reads, 0), core.vault, query)
