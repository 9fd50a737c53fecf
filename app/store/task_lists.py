"""Pages of tasks, newest first, at a cost that does not grow with queues, history, or filters that match little.

A page is searched downwards from a position in the order of ids, in windows: a number of the newest rows below the position are
checked, live and ended ones separately, and the matching ones are kept. A source with more rows than its window is covered only
down to its last row; the next window starts at the highest of these ends. So a page covers everything between two positions, and
since a task that moves to history in the meantime keeps its id, none is missed and none appears twice.

Windows continue until the page is full, nothing is left, or LOOK_SECONDS have passed. Then the page may hold fewer tasks than
requested, or none, and the position says where to continue. A window reads an index in the order of ids: of a batch, of each of a
few queues, of tasks that have not succeeded, or otherwise of all tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.domain.callers import Caller
from app.domain.views import TaskView
from app.store import queue_names
from app.store.db import Reader
from app.store.failures import TooSlow
from app.store.numbers import TaskState, named
from app.store.statements import fill, part, sql
from app.store.vault import Vault
from app.store.views import RUNNING, show_tasks
from app.store.windows import Windows

FEW_QUEUES = 50
"""Up to this many queues are searched one by one, each with a probe of every day of history: a few milliseconds."""
LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
"""Before the first page."""
FIRST = "00000000-0000-0000-0000-000000000000"
"""The same, oldest first."""

LIVE_STATES = {
    "ready": named(
        "(t.state = :state_ready or t.state = :state_scheduled and t.run_at <= clock_timestamp()"
        " or t.state = :state_running and t.lease_expires_at <= clock_timestamp())"
    ),
    "running": RUNNING,
    "scheduled": named("t.state = :state_scheduled and t.run_at > clock_timestamp()"),
}
ENDED_STATES = {state.name.lower(): state for state in (TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED)}
UNSUCCESSFUL = named("t.state > :state_succeeded")
"""The predicate of the index on a tenant's dead and cancelled tasks."""
OF_INDEX = {"scheduled": named(" and t.state = :state_scheduled"), "dead": named(" and t.state = :state_dead")}
"""States with an index of their own per queue."""
SETS: dict[str, tuple[str | None, str | None]] = {
    "unfinished": ("", None),
    "waiting": (named("t.state <> :state_running"), None),
    "revivable": (named("t.state = :state_scheduled"), UNSUCCESSFUL),
    "dead": (None, named("t.state = :state_dead")),
}
"""Conditions on live and on ended tasks; None: none of them."""
DESCENDING = {"beyond": "<", "order": "desc", "back": "asc", "until": ">="}
ASCENDING = {"beyond": ">", "order": "asc", "back": "desc", "until": "<="}
_WINDOW = sql("look_through_tasks")
_OF_QUEUE = part("handler_of_queue")
_BY_QUEUE, _BY_BATCH = part("newest_by_queue"), part("newest_of_batch")
_RUNNING, _NEWEST = part("newest_running"), part("newest")
_NOT_RUNNING = named(" and t.state <> :state_running and t.claims >= 0")
"""The predicate of the index on a queue's live tasks: a claim takes a task out of it. Running ones are read beside it."""


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Filters of a page, newest first, below the id `before`. `queue_ids` are the queues to search, None for all."""

    tenant_id: int
    queue_ids: Sequence[int] | None
    before: str | None
    limit: int
    include_payload: bool
    state: str | None = None
    reason: str | None = None
    type: str | None = None
    tag: str | None = None
    handler_ids: Sequence[int] | None = None
    correlation_id: str | None = None
    schedule: str | None = None
    batch: str | None = None
    parents: Sequence[str] | None = None
    """Only tasks that followed from one of these."""
    ended_from: datetime | None = None
    ended_to: datetime | None = None
    ascending: bool = False
    """Oldest first, from `before` upwards."""
    within: str | None = None
    """Only tasks in one of several states: a name in SETS."""
    at: datetime | None = None
    """Only tasks that were there then, and had ended by then if they have ended."""
    failed: bool = False
    """Only tasks of which an attempt has failed."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    items: list[TaskView]
    position: str | None
    """Where the next page begins; None after the last."""


async def queues_to_look_in(db: Reader, caller: Caller, name: str | None) -> list[int] | None:
    """Return the queues that have or had this name, or all that the caller sees; None if those are all of the tenant's and too
    many to list.

    Queues deleted long ago are left out, because their tasks are gone.
    """
    if name is not None and not caller.sees(name):
        return []
    if name is None and caller.queues is not None:
        return await queue_names.remembered_within(db, caller.tenant_id, caller.queues)
    found = await queue_names.remembered(db, caller.tenant_id, name, FEW_QUEUES + 1)
    return None if name is None and len(found) > FEW_QUEUES else found


async def look_through(db: Reader, query: TaskQuery, rows: int, limit: int) -> tuple[list[str], str | None]:
    """Search one window of `rows` rows from `before` on; return up to `limit` matching ids in the query's order, and the id up to
    which the search is complete; None: to the end."""
    look = _Look(query)
    if query.queue_ids == [] or not (look.live or look.ended):
        return [], None
    ids, reached = await look.window(db, query.before or (FIRST if query.ascending else LAST), rows, limit)
    return ids, ids[-1] if len(ids) == limit else reached


async def find(db: Reader, vault: Vault, tenant_id: int, task_ids: Sequence[str]) -> list[TaskView]:
    """Return those of these tasks that are there, without payloads, newest first."""
    if not task_ids:
        return []
    of_tenant = ["t.tenant_id = $1"]
    kept = [*of_tenant, "t.kept_until > clock_timestamp()"]
    return await show_tasks(db, vault, [tenant_id, list(task_ids)], of_tenant, kept, payloads=False)


async def list_page(db: Reader, vault: Vault, query: TaskQuery) -> TaskPage:
    look = _Look(query)
    if query.queue_ids == [] or not (look.live or look.ended):
        return TaskPage([], None)
    windows, position = Windows(query.limit + 1), query.before
    found: list[str] = []
    while True:
        try:
            ids, reached = await look.window(db, position or LAST, windows.rows, query.limit + 1 - len(found))
        except TooSlow:
            if position == query.before:
                raise
            break  # answer what has been found
        found += ids
        position = reached
        if len(found) > query.limit or reached is None or not windows.looked():
            break
    if len(found) > query.limit:
        del found[query.limit :]
        position = found[-1]
    args = [query.tenant_id, found, *look.args[2:]]
    shown = await show_tasks(db, vault, args, look.live, look.ended, payloads=query.include_payload) if found else []
    if shown and len(shown) < len(found):
        position = shown[
            -1
        ].id  # the page was full before the window's end, or some tasks have changed and are skipped again
    return TaskPage(shown, position)


@dataclass(slots=True)
class _Look:
    """A query as conditions on rows; $1 is the tenant, $2 one or several ids, the others are filter values."""

    query: TaskQuery
    args: list[Any] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    """Empty if no live task can match; the same for ended ones."""
    ended: list[str] = field(default_factory=list)
    batch: str = ""
    queues: str = ""

    def __post_init__(self) -> None:
        query = self.query
        self.args = [query.tenant_id, None]
        ended_only = query.state in ENDED_STATES or query.reason or query.ended_from or query.ended_to
        if not ended_only:
            self.live = ["t.tenant_id = $1"]
        if query.state not in LIVE_STATES:
            self.ended = ["t.tenant_id = $1", "t.kept_until > clock_timestamp()"]
        if query.queue_ids is not None:
            self.queues = self._arg(list(query.queue_ids), "bigint[]")
            self._add(f"t.queue_id = any({self.queues})")
        if query.batch is not None:
            self.batch = f"t.batch_id = {self._arg(query.batch, 'uuid')}"
            self._add(self.batch)
        if query.parents is not None:
            self._add(f"t.parent_id = any({self._arg(list(query.parents), 'uuid[]')})")
        for value, condition in (
            (query.type, "t.options ->> 'type' = {}"),
            (query.tag, "t.options -> 'tags' ? {}"),
            (query.correlation_id, "t.options ->> 'correlation_id' = {}"),
            (query.schedule, "t.options ->> 'schedule' = {}"),
        ):
            if value is not None:
                self._add(condition.format(self._arg(value, "text")))
        if query.handler_ids is not None:
            handlers = f"any({self._arg(list(query.handler_ids), 'bigint[]')})"
            self._add(
                f"coalesce(nullif(t.handler_id, 0), {_OF_QUEUE}) = {handlers}",
                f"coalesce(nullif(t.handler_id, 0), t.lease_handler_id, {_OF_QUEUE}) = {handlers}",
            )
        if query.state is not None:
            self._add(LIVE_STATES.get(query.state, ""), f"t.state = {ENDED_STATES.get(query.state, -1):d}")
        if query.within is not None:
            self._keep_within(*SETS[query.within])
        if query.at is not None:
            then = self._arg(query.at, "timestamptz")
            self._add(f"t.created_at <= {then}", f"t.ended_at < {then}")
        if query.failed:
            self._add("t.last_error is not null")
        if self.ended:
            self._add_ends()

    def _keep_within(self, live: str | None, ended: str | None) -> None:
        self.live = [] if live is None else [*self.live, live] if self.live and live else self.live
        self.ended = [] if ended is None else [*self.ended, ended] if self.ended else []

    def _arg(self, value: object, kind: str) -> str:
        self.args.append(value)
        return f"${len(self.args)}::{kind}"

    def _add(self, live: str, ended: str | None = None) -> None:
        if self.live:
            self.live.append(live)
        if self.ended:
            self.ended.append(live if ended is None else ended)

    def _add_ends(self) -> None:
        query = self.query
        if query.reason is not None:
            self.ended += [f"t.reason = {self._arg(query.reason, 'text')}", UNSUCCESSFUL]
        for ended_at, condition in ((query.ended_from, "t.ended_at >= {}"), (query.ended_to, "t.ended_at < {}")):
            if ended_at is not None:
                self.ended.append(condition.format(self._arg(ended_at, "timestamptz")))

    async def window(self, db: Reader, before: str, rows: int, limit: int) -> tuple[list[str], str | None]:
        """Return the next matching ids, and the id up to which (in the query's order) the search is complete; None: to the end."""
        parts = len(self.query.queue_ids or ()) if self._by_queue else 1
        each = max(rows // parts, limit)
        sides = [
            self._source(table, conditions, each)
            for table, conditions in (("tasks", self.live), ("task_history", self.ended))
            if conditions
        ]
        ways = self._ways
        window = fill(_WINDOW, sides=" union all ".join(sides), each=str(each), limit=str(limit), **ways)
        [row] = await db.fetch(window, self.args[0], before, *self.args[2:])
        reached = row["reached"]
        return [str(task_id) for task_id in row["ids"]], None if reached is None else str(reached)

    @property
    def _ways(self) -> dict[str, str]:
        return ASCENDING if self.query.ascending else DESCENDING

    @property
    def _by_queue(self) -> bool:
        query = self.query
        return query.batch is None and query.state != "running" and 0 < len(query.queue_ids or ()) <= FEW_QUEUES

    def _source(self, table: str, conditions: Sequence[str], rows: int) -> str:
        """Return SQL for the next `rows` rows, each with whether it matches; `part` distinguishes windows of the same side."""
        query = self.query
        parts = {
            "table": table,
            "fits": " and ".join(conditions),
            "rows": str(rows),
            "queues": self.queues,
            "batch": self.batch,
            "state": OF_INDEX.get(query.state or "", ""),
            "within": "",
            **self._ways,
        }
        if self._by_queue:
            return self._of_queues(parts)
        if query.batch is not None:
            return fill(_BY_BATCH, **parts)
        if query.state == "running":
            return fill(_RUNNING, **parts)
        if query.state in ("dead", "cancelled") or query.reason is not None:
            parts["within"] = f" and t.tenant_id = $1 and {UNSUCCESSFUL}"
        return fill(_NEWEST, **parts)

    def _of_queues(self, parts: dict[str, str]) -> str:
        if parts["table"] != "tasks" or parts["state"]:
            return fill(_BY_QUEUE, **parts)
        running = fill(_RUNNING, **{**parts, "within": f" and t.queue_id = any({self.queues})"})
        return f"{fill(_BY_QUEUE, **{**parts, 'state': _NOT_RUNNING})} union all {running}"
