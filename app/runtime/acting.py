"""Working on actions (service/actions.py): list what matches, act on it in chunks, and tell whoever waits for what has changed.

Any replica takes any step, for as long as the action runs: what has been listed and done is stored with it.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from functools import partial

from app.domain.actions import Kind
from app.domain.signatures import signature
from app.runtime.cancelling import after_cancel
from app.runtime.core import Core
from app.runtime.pieces import in_pieces
from app.store import actions, partitions, task_lists
from app.store.actions import Acted, ChunkRefused, StoredAction
from app.store.db import Reader
from app.store.task_lists import TaskQuery
from app.telemetry import events
from app.telemetry.logs import get_logger

FIRST_CHUNK, MAX_CHUNK = 50, 500
QUICK_SECONDS, SLOW_SECONDS = 0.04, 0.1
"""A chunk that took less is followed by a larger one, a chunk that took more by a smaller one."""
FIRST_WINDOW, MAX_WINDOW = 500, 5_000
BUSY_SECONDS = 0.1

log = get_logger(__name__)


@dataclass(slots=True)
class Pace:
    """How many rows the next statement takes, so that none takes long."""

    rows: int
    most: int

    def took(self, seconds: float) -> None:
        if seconds < QUICK_SECONDS:
            self.rows = min(self.most, self.rows * 2)
        elif seconds > SLOW_SECONDS:
            self.rows = max(1, self.rows // 2)


async def finish(core: Core, changes: Reader, action_id: str, seconds: float = math.inf) -> None:
    """Work on an action until it has ended, or for so long at most."""
    ends = time.monotonic() + seconds
    while (wait := await work(core, changes, action_id, max(0.0, ends - time.monotonic()))) is not None:
        if time.monotonic() + wait > ends:
            return
        await asyncio.sleep(wait)


async def work(core: Core, changes: Reader, action_id: str, seconds: float) -> float | None:
    """Take steps of an action for so long at most; return in how many seconds it may go on, None once it has ended.

    One replica acts at a time; while it is another, this one returns.
    """
    ends = time.monotonic() + seconds
    windows, chunks = Pace(FIRST_WINDOW, MAX_WINDOW), Pace(FIRST_CHUNK, MAX_CHUNK)
    while True:
        found = await actions.read(changes, action_id)
        if found is None or not found.running:
            return None
        if not found.listed and found.wanted != 0:
            await _list(core, changes, found, windows)
        else:
            acted = await _act_on(core, changes, found, chunks, ends)
            if acted.verdict in ("busy", "waits"):
                return BUSY_SECONDS if acted.verdict == "busy" else acted.seconds
        if time.monotonic() > ends:
            return 0.0


async def _act_on(core: Core, changes: Reader, found: StoredAction, chunks: Pace, ends: float) -> Acted:
    """Act on chunk after chunk until something else is to be done, or the time is up."""
    while True:
        acted = await _act(core, changes, found, chunks)
        if acted.verdict not in ("acted", "again") or time.monotonic() > ends:
            return acted


async def matching(
    core: Core, query: TaskQuery, error: str | None, rows: int, limit: int
) -> tuple[list[str], str | None]:
    """Return the next matching tasks in a window of so many rows, and where the search is now; None: at its end.

    `error`: a signature that the last error must have."""
    reads = core.db.reads(query.tenant_id)
    ids, reached = await task_lists.look_through(reads, query, rows, limit)
    if error is not None and ids:
        failed = await actions.last_errors(reads, ids)
        ids = [task_id async for task_id in in_pieces(ids) if task_id in failed and signature(failed[task_id]) == error]
    return ids, reached


async def _list(core: Core, changes: Reader, found: StoredAction, windows: Pace) -> None:
    began = time.monotonic()
    limit = windows.rows if found.wanted is None else min(windows.rows, found.wanted)
    query = found.search.query(found.tenant_id, found.scanned_to, found.at)
    ids, reached = await matching(core, query, found.search.error, windows.rows, limit)
    windows.took(time.monotonic() - began)
    await actions.note_listed(changes, found, reached, ids)


async def _act(core: Core, changes: Reader, found: StoredAction, chunks: Pace) -> Acted:
    """Act on a chunk. Of one that the database refuses, try the tasks one by one, and pass over those that it refuses alone."""
    limit = chunks.rows
    if found.view.rate_per_second is not None:
        limit = max(1, min(limit, int(found.view.rate_per_second / 2)))
    suspect = await actions.next_task(changes, found.id) if limit == 1 else None
    began = time.monotonic()
    try:
        acted = await partitions.with_days(
            core.db, partial(actions.act, changes, found.id, limit, told=core.called_back)
        )
    except ChunkRefused as error:
        events.emit(log, events.STATEMENT_FAILED, statement="act", size=limit, error=str(error))
        chunks.rows = 1
        if error.passing:
            return Acted("busy")
        if suspect is not None:  # it was alone, so it is to blame
            await actions.fail_task(changes, found.id, suspect)
        return Acted("again")
    if acted.verdict == "acted":
        chunks.took(time.monotonic() - began)
        _tell(core, found.view.kind, acted)
    return acted


def _tell(core: Core, kind: Kind, acted: Acted) -> None:
    after_cancel(core, acted.cancelled, "purged" if kind == "empty" else "requested")
    for queue_id, count in acted.purged.items():
        core.stats.ended_waiting(queue_id, "cancelled", "superseded" if kind == "move" else "purged", count)
    if acted.purged:
        core.waiters.look()
    if acted.purged or acted.batches:
        core.signals.batch_changed()
    for lane in acted.lanes:
        core.signals.lane_ready(*lane)
    if acted.due_at is not None:
        core.signals.task_due_at(acted.due_at)
