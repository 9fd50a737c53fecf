"""Every hot statement keeps its index plan: with two million tasks, on statistics from when there was next to nothing.

Each is called seven times on one connection, as a replica calls it, so that custom and generic plans are seen, and every
statement inside the functions is looked at. One test, since one load of the table has to do for all of it.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.actions import TAKES, Kind
from app.domain.histograms import BUCKETS
from app.domain.sources import Counts, SourceDefinition, SourceView
from app.store import (
    actions,
    batches,
    breakers,
    enqueues,
    flows,
    messages,
    migrations,
    polls,
    sources,
    stats,
    task_lists,
    tasks,
    views,
    windows,
)
from app.store.breakers import Calls
from app.store.callbacks import Called
from app.store.db import READING
from app.store.enqueues import Entry
from app.store.functions import FUNCTIONS, SIGNATURES, WITHIN_ENQUEUE
from app.store.sources import Round, SourceRow
from app.store.task_lists import TaskQuery
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from tests.databases import create_database, drop_database
from tests.plans.loading import HISTORY, QUEUES, TASKS, VAULT, batch_id, load, task_id
from tests.plans.plans import CALLED, WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(240)]

CALLS = 7
GROUP = 40
MOST_ROWS = 1500
"""What one node of a plan may read: a page of every queue, or a few groups; three orders of magnitude below the table."""
# The first is called once an hour; the second writes to the tables of schedules, which are not loaded here.
# The third is a trigger, which no statement names: the enqueues of keyed tasks run it.
NOT_HOT = {
    *("ensure_partitions_v1", "apply_schedules_v1", "join_flow_v1", "record_audit_v1", "refuse_change_v1"),
    # of transactions of others, and of commands
    *WITHIN_ENQUEUE,
    *SIGNATURES,
    *("held_keys_v1", "admit_role_v1"),
}

CALLBACKS = '{"callbacks": {"dead": {"queue": "q6"}, "succeeded": {"queue": "q6", "body": "payload"}}}'

Call = Callable[[], Awaitable[object]]


@pytest.fixture
async def loaded(server_url: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await load(connection)
    await connection.close()
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


@dataclass
class Replica:
    """What a replica asks of its database, one statement a method; the arguments differ from call to call."""

    db: WatchedDatabase
    reads: WatchedDatabase
    """Set as the connections are that callers read by."""
    queues: list[tuple[int, int]]
    """(id, version)"""
    tenant: int
    now: datetime
    held: list[Claimed] = field(default_factory=list)
    settled: list[AttemptEnd] = field(default_factory=list)
    due: "itertools.count[int]" = field(default_factory=lambda: itertools.count(9, 9))
    waiting: "itertools.count[int]" = field(default_factory=lambda: itertools.count(TASKS // 2, 9))
    unique: "itertools.count[int]" = field(default_factory=lambda: itertools.count(TASKS * 3 // 4, 10))
    ended: "itertools.count[int]" = field(default_factory=lambda: itertools.count(TASKS + HISTORY // 2))

    def some(self, count: int) -> list[str]:
        return [task_id(number) for number in itertools.islice(self.waiting, count)]

    async def claim(self) -> None:
        claim = await self._claim(self.queues[2][0], str(uuid4()))
        assert len(claim) == GROUP
        self.held = claim

    async def claim_limited(self) -> None:
        """Where queue, handler and tenant have a limit, and all that runs is counted three times."""
        assert len(await self._claim(self.queues[3][0], str(uuid4()))) == GROUP

    async def claim_since(self) -> None:
        """From a remembered place on, and then what has a lower priority."""
        claim_id = str(uuid4())
        await self._claim(self.queues[2][0], claim_id, (0, self.now - timedelta(hours=1)))
        await tasks.release_claim(self.db, claim_id)

    async def claim_groups(self) -> None:
        """For a handler that takes groups, and lets them wait."""
        await self._claim(self.queues[3][0], str(uuid4()))

    async def _claim(self, queue_id: int, claim_id: str, since: tuple[int, datetime] | None = None) -> list[Claimed]:
        (claim,) = await tasks.claim(
            self.db,
            [LaneWant(queue_id, 0, GROUP, *(since or ()))],
            owner=str(uuid4()),
            replica="replica",
            claim_id=claim_id,
            not_after=self.now + timedelta(hours=1),
            lease_seconds=30,
        )
        return claim.tasks

    async def claim_flows(self) -> None:
        """Of a queue with many keys, most of them blocked: fold, pick, park, and free again."""
        taken = await self._claim(self.queues[12][0], str(uuid4()))
        assert len(taken) == GROUP
        assert len(await self._claim(self.queues[13][0], str(uuid4()))) == GROUP
        await tasks.settle(self.db, [AttemptEnd(task.task_id, task.token, "succeeded", "succeeded") for task in taken])
        assert (await flows.sweep(self.db)).rescued == 0

    async def receive(self) -> None:
        """A round of a receiver whose room is short, and messages that cannot be tasks."""
        definition = SourceDefinition(kind="sqs", queue="q2", max_outstanding=GROUP)
        view = SourceView("orders", definition, self.now, self.now)
        source_id = await self.db.fetchval("select id from sluice.sources")
        row = SourceRow(source_id, self.tenant, "default", self.queues[1][0], 1, "", view)
        done = Round(self.some(GROUP), Counts(received=GROUP), worked=True)
        room = await sources.take_room(self.db, row, str(uuid4()), GROUP, done)
        assert room is not None and room.messages == 0
        await sources.write_depth(self.db, source_id, 7, 1.5)
        entries = [
            Entry(str(uuid4()), *self.queues[1], 0, b"1", str(uuid4()), b"1" * 32, key_seconds=60) for _ in range(GROUP)
        ]
        assert (await sources.enqueue_dead(self.db, entries, ["no"] * GROUP)).verdicts == {}

    async def settle_lapsed(self) -> None:
        """Messages that are hidden for longer and then deleted, by receipt handles."""
        await self.claim()
        handles = [messages.Handle(self.queues[2][0], task.task_id, task.token, 0.0) for task in self.held]
        assert len(await messages.settle_lapsed(self.db, handles, [30.0] * GROUP)) == GROUP
        await messages.settle_lapsed(self.db, handles, [None] * GROUP)

    async def change_limits(self) -> None:
        limit = await self.db.fetchval("select min(id) from sluice.limits")
        for limit_id in (limit, None):
            await flows.reopen(self.db, self.tenant, limit_id)

    async def release_claim(self) -> None:
        claim_id = str(uuid4())
        await self._claim(self.queues[2][0], claim_id)
        assert await tasks.release_claim(self.db, claim_id)

    async def renew(self) -> None:
        assert len(await tasks.renew(self.db, [(task.task_id, task.token) for task in self.held], 60)) == GROUP

    async def extend_lease(self) -> None:
        assert await tasks.extend_lease(self.db, self.held[0].task_id, self.held[0].token, 30, None)

    async def read_lease(self) -> None:
        assert await tasks.held_lease(self.db, self.held[0].task_id, self.held[0].token)
        assert await tasks.fate_of_lease(self.db, self.held[0].task_id, self.held[0].token) == "held"
        assert await tasks.fate_of_lease(self.db, self.held[0].task_id, str(uuid4())) == "unknown"

    async def settle(self) -> None:
        kinds = ("succeeded", "retry", "dead", "refund")
        self.settled = [
            AttemptEnd(task.task_id, task.token, kinds[place % 4], "failed", None, 60.0 * (place % 8 < 4))
            for place, task in enumerate(await self._claim(self.queues[2][0], str(uuid4())))
        ]
        assert set((await tasks.settle(self.db, self.settled)).values()) == {"applied"}

    async def settle_and_claim(self) -> None:
        queue_id = self.queues[14][0]
        taken = await self._claim(queue_id, str(uuid4()))
        _, (claim,) = await tasks.settle_and_claim(
            self.db,
            [AttemptEnd(task.task_id, task.token, "succeeded", "succeeded") for task in taken],
            [LaneWant(queue_id, 0, GROUP)],
            owner=str(uuid4()),
            replica="replica",
            claim_id=str(uuid4()),
            not_after=self.now + timedelta(hours=1),
            lease_seconds=30,
        )
        assert len(claim.tasks) == GROUP

    async def settle_again(self) -> None:
        assert set((await tasks.settle(self.db, self.settled)).values()) == {"repeat"}

    def entries(self, atomic: bool = False) -> list[Entry]:
        made = []
        for place in range(GROUP):
            queue_id, version = self.queues[5 if atomic else 5 + place % 3]
            key = f"key {uuid4()}" if place % 2 else None
            unique = f"unique {uuid4()}" if place % 5 == 0 else None
            made.append(Entry(str(uuid4()), queue_id, version, 0, b"null", key, b"print" if key else None, unique))
        return made

    async def enqueue(self) -> None:
        group, entries = str(uuid4()), self.entries()
        for _ in range(2):
            assert (await enqueues.enqueue(self.db, group, entries)).verdicts == {}
        again = [entry._replace(task_id=str(uuid4())) for entry in entries if entry.key]
        replayed = (await enqueues.enqueue(self.db, str(uuid4()), again)).verdicts
        assert {verdict[0] for verdict in replayed.values()} == {"replayed"}

    async def enqueue_plain(self) -> None:
        queue_id, version = self.queues[5]
        entries = [Entry(str(uuid4()), queue_id, version, 0, b"null", None, None) for _ in range(GROUP)]
        assert (await enqueues.enqueue(self.db, str(uuid4()), entries)).verdicts == {}

    async def enqueue_plain_of_several(self) -> None:
        chosen = [self.queues[n % len(self.queues)] for n in range(GROUP)]
        entries = [Entry(str(uuid4()), queue_id, version, 0, b"null", None, None) for queue_id, version in chosen]
        assert (await enqueues.enqueue(self.db, str(uuid4()), entries)).verdicts == {}

    async def enqueue_held(self) -> None:
        """Unfinished tasks have the unique keys."""
        numbers = list(itertools.islice(self.unique, GROUP))
        entries = []
        for number in numbers:
            queue_id, version = self.queues[number % QUEUES]
            key = f"unique {number}"
            entries.append(Entry(str(uuid4()), queue_id, version, 0, b"null", None, None, key))
        verdicts = (await enqueues.enqueue(self.db, str(uuid4()), entries)).verdicts
        assert [verdicts[place] for place in sorted(verdicts)] == [["held", task_id(number)] for number in numbers]

    async def enqueue_replacing(self) -> None:
        """Waiting tasks have the unique keys, and take what these entries say."""
        numbers = list(itertools.islice(self.unique, GROUP))
        entries = []
        for place, number in enumerate(numbers):
            kind = ("replace", "postpone")[place % 2]
            entry = Entry(str(uuid4()), *self.queues[number % QUEUES], 0, b"1", None, None, f"unique {number}")
            entries.append(entry._replace(on_duplicate=kind, key=f"key {uuid4()}", fingerprint=b"print"))
        verdicts = (await enqueues.enqueue(self.db, str(uuid4()), entries)).verdicts
        assert [verdicts[place] for place in sorted(verdicts)] == [["replaced", task_id(number)] for number in numbers]

    async def enqueue_calling_back(self) -> None:
        entries = [entry._replace(options=CALLBACKS) for entry in self.entries()]
        assert (await enqueues.enqueue(self.db, str(uuid4()), entries)).verdicts == {}

    async def call_back(self) -> None:
        """All of them do when they end, one half with a summary, the other with their payload."""
        held = await self._claim(self.queues[2][0], str(uuid4()))
        await self.db.unwatched(
            "update sluice.tasks set options = $1::jsonb where id = any($2)", CALLBACKS, [task.task_id for task in held]
        )
        outcomes = [
            AttemptEnd(task.task_id, task.token, ("succeeded", "dead")[place % 2], "x")
            for place, task in enumerate(held)
        ]
        heard: list[Called] = []
        await tasks.settle(self.db, outcomes, told=heard.append)
        assert heard == [Called({self.queues[5][0]: GROUP})]

    async def enqueue_atomic(self) -> None:
        assert (await enqueues.enqueue(self.db, str(uuid4()), self.entries(True), atomic=True)).verdicts == {}

    async def reap(self) -> None:
        lost = [task.task_id for task in await self._claim(self.queues[4][0], str(uuid4()))]
        await self.db.unwatched(
            "update sluice.tasks set lease_expires_at = '2000-01-01', max_attempts = 1 + (id > $2)::integer where id = any($1)",
            lost,
            sorted(lost)[GROUP // 2],
        )
        assert len((await tasks.reap(self.db, GROUP)).reaped) == GROUP

    async def promote(self) -> None:
        await self.db.unwatched(
            "update sluice.tasks set run_at = '2000-01-01' where id = any($1)",
            [task_id(next(self.due)) for _ in range(GROUP)],
        )
        assert (await tasks.promote(self.db, GROUP)).moved == GROUP

    async def expire(self) -> None:
        await self.db.unwatched(
            "update sluice.tasks set expires_at = '2000-01-01' where id = any($1)", self.some(GROUP)
        )
        assert (await tasks.expire(self.db, GROUP))[0].moved == GROUP

    async def cancel(self) -> None:
        assert len(await tasks.cancel(self.db, self.tenant, self.some(GROUP), "requested")) == GROUP

    async def retry(self) -> None:
        (waiting,) = self.some(1)
        await tasks.cancel(self.db, self.tenant, [waiting], "requested")
        assert await tasks.retry(self.db, self.tenant, waiting) == "moved"
        assert await tasks.retry(self.db, self.tenant, waiting) == "unchanged"

    async def update(self) -> None:
        (waiting,) = self.some(1)
        version = self.queues[0][1]
        carried = '{"type": "t"}'
        patch = '{"priority": 7, "delay_seconds": 60}'
        assert await tasks.update(self.db, self.tenant, waiting, version, patch, carried, None, None, "{}") == "done"

    async def act(self) -> None:
        """Of each kind, on what is listed; and what a search lists."""
        terms: dict[Kind, dict[str, Any]] = {"reschedule": {"run_at": self.now}, "set_priority": {"priority": 3}}
        for kind in get_args(Kind):
            _, within = TAKES[kind]
            ids = self.some(GROUP)
            if within in ("dead", "revivable"):
                ids = [task_id(next(self.ended)) for _ in range(GROUP)]
                await self.db.unwatched("update sluice.task_history set state = 4 where id = any($1)", ids)
            to = self.queues[10][0] if kind == "move" else None
            search = actions.Search(queue_ids=[self.queues[9][0]], within=within, to=to)
            at = self.now + timedelta(days=1)
            new = actions.NewAction(
                str(uuid4()),
                self.tenant,
                kind,
                {},
                search,
                at,
                **terms.get(kind, {}),
            )
            await actions.add(self.db, new)
            stored = await actions.read(self.db, new.id)
            assert stored is not None and new.id in await actions.due(self.db)
            query = search.query(self.tenant, task_lists.FIRST, at)
            await task_lists.look_through(self.reads, query, GROUP, GROUP)
            assert await actions.note_listed(self.db, stored, None, ids)
            acted = await actions.act(self.db, new.id, GROUP)
            # of those that move, some are sent on under another id
            done = acted.acted if kind == "move" else acted.done
            assert (acted.verdict, done, acted.left) == ("acted", GROUP, False), kind
            after = str(UUID(int=UUID(new.id).int + 1))
            listed = await actions.list_page(self.db, self.tenant, after, 51, within=None, key_id=None)
            assert (listed[0].id, listed[0].done) == (new.id, acted.done)

    async def settle_followups(self) -> None:
        task = (await self._claim(self.queues[11][0], str(uuid4())))[0]
        outcome = AttemptEnd(task.task_id, task.token, "succeeded", "succeeded")
        entries = [entry._replace(key=f"key {uuid4()}") for entry in self.entries(True)]
        completion = batches.Completion(*self.queues[5], b"digest", b"null")
        followed = await batches.settle_followups(self.db, outcome, entries, "more", completion)
        assert (followed.verdict, followed.created) == ("applied", {self.queues[5][0]: GROUP})

    async def batches(self) -> None:
        """A batch from its creation to its end; without its action, it is swept."""
        batch_id, queue = str(uuid4()), self.queues[5]
        completion = batches.Completion(*queue, b"digest", b"null")
        assert await batches.create(self.db, self.tenant, batch_id, queue, sealed=False, completion=completion)
        await enqueues.enqueue(self.db, str(uuid4()), self.entries(True), batch_id=batch_id)
        view = await batches.find(self.db, self.tenant, batch_id)
        assert view is not None and view.counts.ready == GROUP
        assert await batches.close(self.db, self.tenant, batch_id, "requested")
        assert batch_id in await batches.unswept(self.db)
        for wait in (False, True):
            assert len((await batches.sweep(self.db, batch_id, GROUP // 2, wait=wait)).tasks) == GROUP // 2
        assert (await batches.sweep(self.db, batch_id, GROUP, wait=False)).done
        assert batch_id in (await batches.fold(self.db, 200)).completed

    async def read(self) -> None:
        (waiting,) = self.some(1)
        ended = task_id(next(self.ended))
        assert await views.find_task(self.reads, VAULT, self.tenant, waiting)
        assert await views.find_task(self.reads, VAULT, self.tenant, ended)
        await views.list_attempts(self.reads, VAULT, self.tenant, ended, 2**31 - 1, 51)
        every = [queue_id for queue_id, _ in self.queues]
        for queue_ids in (None, every):
            assert await batches.list_page(self.reads, self.tenant, None, 51, queue_ids)

    async def read_tasks(self) -> None:
        (waiting,) = self.some(1)
        ended = task_id(next(self.ended))
        assert await views.find_task(self.db, VAULT, self.tenant, waiting) and await views.find_any(
            self.db, VAULT, ended
        )
        assert len(await views.find_tasks(self.db, VAULT, self.tenant, self.some(GROUP))) == GROUP
        watched = [*self.some(5 * GROUP), *(task_id(next(self.ended)) for _ in range(GROUP))]
        assert sorted(await views.not_live(self.db, watched)) == sorted(watched[-GROUP:])
        assert await tasks.lane_of(self.db, waiting)

    async def look_for_work(self) -> None:
        found = await tasks.ready_lanes(self.db, tasks.FIRST_LANE, 500)
        assert [lane.open for lane in found] == [True] * len(self.queues)
        assert (await polls.poll(self.db)).promote is not None
        assert len(await tasks.ready_queues(self.db, [queue_id for queue_id, _ in self.queues])) == len(self.queues)

    async def look_at_handlers(self) -> None:
        handler_id = await self.db.fetchval("select max(id) from sluice.handlers")
        durations = [0] * BUCKETS
        await breakers.add_calls(self.db, [Calls(handler_id - n, 0, 9, 1, 1, False, durations) for n in range(GROUP)])
        (found,) = await breakers.look(self.db, [handler_id], 100)
        assert found.seen.calls > 200 and found.seen.new_calls > 400
        shown = await breakers.read(self.db, handler_id)
        assert shown is not None and shown.durations
        assert await breakers.next_look(self.db) is not None
        assert not await breakers.park_key(self.db, self.tenant, self.queues[0][0], "ada", 60.0)
        await breakers.write(self.db, handler_id, found.health)

    async def list(self, **fields: Any) -> None:
        every = [queue_id for queue_id, _ in self.queues]
        given = {"queue_ids": every, "before": None, "limit": 50, "include_payload": True, **fields}
        page = await task_lists.list_page(self.reads, VAULT, TaskQuery(self.tenant, **given))
        assert len(page.items) == 50 or fields.get("state") == "running"

    async def count(self) -> None:
        assert (await stats.count(self.reads, self.queues[6][0])).ready > 50_000
        assert len(await stats.overview(self.reads)) == len(self.queues)
        assert await breakers.overview(self.reads, 1000)

    def calls(self) -> dict[str, Call]:
        lists: dict[str, dict[str, Any]] = {
            "list": {},
            "list a later page": {"before": task_id(TASKS // 3)},
            "list one queue": {"queue_ids": [self.queues[7][0]]},
            "list all queues": {"queue_ids": None},
            **{f"list {state} of all": {"queue_ids": None, "state": state} for state in ("ready", "running", "dead")},
            "list without payloads": {"include_payload": False},
            **{f"list {state}": {"state": state} for state in (*task_lists.LIVE_STATES, *task_lists.ENDED_STATES)},
            "list a batch": {"batch": batch_id(TASKS // 4000)},
            "list a batch of a handler": {"batch": batch_id(TASKS // 4000), "handler_ids": [1]},
            "list ended since": {"ended_from": self.now - timedelta(days=1)},
        }
        verbs: list[Call] = [
            *(
                self.claim,
                self.claim_since,
                self.renew,
                self.extend_lease,
                self.read_lease,
                self.settle,
                self.settle_again,
                self.settle_and_claim,
            ),
            *(
                self.release_claim,
                self.enqueue,
                self.enqueue_atomic,
                self.enqueue_plain,
                self.enqueue_plain_of_several,
                self.enqueue_held,
                self.enqueue_replacing,
                self.enqueue_calling_back,
                self.call_back,
                self.reap,
                self.promote,
                self.expire,
                self.cancel,
            ),
            *(
                self.receive,
                self.retry,
                self.update,
                self.act,
                self.settle_followups,
                self.batches,
                self.read_tasks,
                self.read,
                self.look_for_work,
                self.settle_lapsed,
            ),
        ]
        named: dict[str, Call] = {verb.__name__: verb for verb in verbs}
        named |= {name: lambda fields=fields: self.list(**fields) for name, fields in lists.items()}  # type: ignore[misc]
        return named


# Twenty thousand keys in one queue, each with two tasks and room for one, under a rate and a named limit that have room for more;
# and a thousand ordered ones in another.
_KEYED = """
update sluice.queues set max_concurrency = null;
update sluice.handlers set max_concurrency = null;
update sluice.tenants set max_concurrency = null;
insert into sluice.limits (tenant_id, kind, owner_id, max_concurrency, ordered)
select tenant_id, 'queue_key', id, 1, name = 'q14' from sluice.queues where name in ('q13', 'q14');
insert into sluice.limits (tenant_id, kind, owner_id, rate_limit)
select tenant_id, 'queue_rate', id, 1e6 from sluice.queues where name = 'q13';
insert into sluice.limits (tenant_id, kind, name, max_concurrency) select id, 'named', 'db', 100000 from sluice.tenants;
update sluice.queues set limits = '[{"name": "db"}]' where name = 'q13';
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options)
select gen_random_uuid(), q.tenant_id, q.id, 0, 3, clock_timestamp(), clock_timestamp(), '1',
       jsonb_build_object('key', 'key ' || case q.name when 'q13' then n / 2 else n end)
from sluice.queues q, generate_series(1, 40000) n where q.name = 'q13' or q.name = 'q14' and n <= 1000
"""


_SOURCE = """
with made as (
  insert into sluice.sources (tenant_id, name, queue_id, definition, sealed, etag)
  select tenant_id, 'orders', id, '{}', '', '' from sluice.queues where name = 'q2' returning id)
insert into sluice.source_states (source_id) select id from made
"""


async def test_every_hot_statement_keeps_its_index_plan_with_two_million_tasks_and_stale_statistics(
    loaded: str,
) -> None:
    db, reads = await WatchedDatabase.on(loaded), await WatchedDatabase.on(loaded, **READING)
    queues = [tuple(row) for row in await db.fetch("select id, version from sluice.queues order by id")]
    tenant, now = await db.fetchval("select id from sluice.tenants"), await db.fetchval("select clock_timestamp()")
    replica = Replica(db, reads, queues, tenant, now)
    await db.unwatched(_SOURCE)
    problems: dict[str, set[str]] = {}
    seen: set[str] = set()

    async def run(name: str, call: Call, times: int, most_rows: float) -> None:
        for _ in range(times):
            db.told(), reads.told()
            await call()
            for told in [*db.told(), *reads.told()]:
                seen.update(CALLED.findall(told.query))
                for problem in told.problems(most_rows):
                    problems.setdefault(f"{name}: {problem}", set()).add(" ".join(told.query.split())[:100])

    for name, call in replica.calls().items():
        await run(name, call, CALLS, 2 * windows.MAX_WINDOW if name.startswith("list") else MOST_ROWS)
    # they read what they count, from an index alone
    await run("count", replica.count, 1, float("inf"))
    await db.unwatched("update sluice.queues set max_concurrency = 1400, max_depth = 10000000")
    await db.unwatched("update sluice.handlers set max_concurrency = 1400")
    await db.unwatched("update sluice.tenants set max_concurrency = 1400")
    await run("claim under limits", replica.claim_limited, CALLS, MOST_ROWS)
    await db.unwatched("update sluice.handlers set group_max_tasks = 1000, group_wait_seconds = 300")
    await db.unwatched(_KEYED)
    await run("claim flows", replica.claim_flows, CALLS, MOST_ROWS)
    await run("change limits", replica.change_limits, 2, float("inf"))
    await run("claim groups", replica.claim_groups, CALLS, MOST_ROWS)
    await db.unwatched("""update sluice.handlers set breaker = '{"window_seconds": 60}', adaptive = '{}'""")
    # it counts running tasks from an index alone, as claims under limits do
    await run("look at handlers", replica.look_at_handlers, 2, float("inf"))
    await run("enqueue under a depth", replica.enqueue, 2, float("inf"))
    await db.close()
    await reads.close()
    told_of = "\n".join(f"{problem}\n    {', '.join(queries)}" for problem, queries in problems.items())
    assert not problems, told_of
    sources = {path.stem: path.read_text() for path in FUNCTIONS.glob("*.sql")}
    # an assignment from a function is no statement of its own
    called = seen.union(*(CALLED.findall(sources[name]) for name in seen))
    assert sources.keys() - NOT_HOT <= called, f"never called here: {sources.keys() - NOT_HOT - called}"
