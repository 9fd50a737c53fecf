"""P8, P9, P10 by a record that the product has no part in, with nothing that polls; and each mechanism of flow control is needed.

Several replicas claim and settle at the same time. A mutant takes one mechanism out of the SQL functions of a database of its own,
and the judge of the record finds it.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from app.domain.callers import Caller
from app.domain.limits import LimitUse
from app.domain.options import Options, encode_options
from app.runtime.core import Core
from app.store import enqueues, migrations, tenants
from app.store.enqueues import Entry
from app.store.failures import Busy
from app.store.tasks import AttemptEnd, cancel, settle
from bench.chaos.limits import record
from bench.chaos.limits.judge import Verdict, judge
from bench.chaos.limits.terms import Rate, Task, Terms, Use
from tests.cores import claim, core_on
from tests.promises.flows import Flows

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

REPLICAS, CLAIMERS, LANES = 4, 12, 3
ROUNDS, LONELY_ROUNDS = 40, 400
STILL_SECONDS, MUTANT_STILL_SECONDS = 30.0, 3.0
"""When nothing starts or ends for so long, what is left is stranded. With a mutant, it most often is."""
API = Rate(80, 4)


@dataclass(frozen=True)
class Mutant:
    """Parts of SQL functions replaced, as regular expressions."""

    changes: tuple[tuple[str, str, str], ...]
    outside: bool = False
    """Signals are consumed by somebody who does not take the gate."""
    strands: bool = False
    """It is to strand a task: see Rounds.lonely_round."""


SLOW = ("pick_flows_v1", r"(\n    v_now := clock_timestamp\(\);)", r"\1 perform pg_sleep(0.003);")
"""No mutant: it takes longer from a claim's count to its commit."""
GATE = (r"pg_try_advisory_xact_lock\((\d+), p_tenant::integer\)", "true")
MUTANTS = {
    "the gate is not taken": (Mutant((("fold_flows_v1", *GATE),)), "over a limit"),
    "limits are counted before the gate is taken": (
        Mutant(
            (
                ("fold_flows_v1", *GATE),
                ("pick_flows_v1", r"\n  more := exists", "\n  perform pg_advisory_xact_lock(1, 1);\n  more := exists"),
            )
        ),
        "over a limit",
    ),
    "freed signals are consumed outside the gate": (Mutant((SLOW,), outside=True, strands=True), "stranded"),
    "room that is left opens no other flow": (
        Mutant((("pick_flows_v1", r"sluice\.open_flows_v1\(v_buckets, v_counts\)", "'[]'::jsonb"),), strands=True),
        "stranded",
    ),
    "the arrival time is written without what was there": (
        Mutant((("pick_flows_v1", r"tat = greatest\(r\.tat, \w+\) \+ \(excluded\.tat - \w+\)", "tat = excluded.tat"),)),
        "above a rate",
    ),
}


@pytest.fixture
async def flows(empty_database_url: str) -> AsyncIterator[Flows]:
    await migrations.migrate(empty_database_url)
    async with AsyncExitStack() as stack:
        cores = [await stack.enter_async_context(core_on(empty_database_url)) for _ in range(REPLICAS)]
        caller = Caller(await tenants.id_of(cores[0].db, "default"), "default", "operate")
        yield Flows(cores, caller)


@pytest.fixture
async def database(empty_database_url: str, flows: Flows) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    await record.install(connection)
    yield connection
    await connection.close()


async def test_nothing_is_exceeded_and_nothing_is_stranded_without_anything_that_polls(
    flows: Flows, database: asyncpg.Connection
) -> None:
    verdict = await run(flows, database, Mutant(()))
    assert verdict.told() == []
    assert verdict.ended == verdict.stored > 2 * ROUNDS


@pytest.mark.parametrize("name", MUTANTS)
async def test_the_judge_finds_it_if(name: str, flows: Flows, database: asyncpg.Connection) -> None:
    mutant, fault = MUTANTS[name]
    for function, part, new in mutant.changes:
        await replace(database, function, part, new)
    if mutant.outside:
        await replace(database, "fold_flows_v1", *GATE, name="fold_outside")
    verdict = await run(flows, database, mutant)
    # without the gate, a task may be stranded before a limit is exceeded
    assert verdict.faults if fault == "over a limit" else fault in verdict.faults, verdict.told()


async def replace(database: asyncpg.Connection, function: str, part: str, new: str, name: str | None = None) -> None:
    """Replace a part of a SQL function, in place or in a copy of this name."""
    source = await database.fetchval("select pg_get_functiondef($1::regproc)", f"sluice.{function}")
    changed, count = re.subn(part, new, source)
    assert count > 0, f"{function} has no {part}"
    if name is not None:
        changed = changed.replace(f"sluice.{function}(", f"sluice.{name}(", 1)
    await database.execute(changed)


async def run(flows: Flows, database: asyncpg.Connection, mutant: Mutant) -> Verdict:
    """Run rounds of a few tasks that want the same limits, until one is stuck."""
    rounds = Rounds(flows, database, MUTANT_STILL_SECONDS if mutant.changes or mutant.outside else STILL_SECONDS)
    await rounds.set_up()
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(rounds.claim(number)) for number in range(CLAIMERS)]
        if mutant.outside:
            work.append(group.create_task(rounds.fold_outside()))
        for number in range(LONELY_ROUNDS if mutant.strands else ROUNDS):
            if not await (rounds.lonely_round() if mutant.strands else rounds.round(number)):
                break
        for task in work:
            task.cancel()
    return judge(await record.read(database))


class Rounds:
    """Few tasks at a time, each of a key of its own: with many, the next end makes good for a lost wake-up."""

    def __init__(self, flows: Flows, database: asyncpg.Connection, still_seconds: float) -> None:
        self._flows, self._database, self._still_seconds = flows, database, still_seconds
        self._dice = random.Random(1)
        self._queues: list[int] = []
        self._shared = 0
        self._left: set[str] = set()
        self._happened = asyncio.Event()
        self._number = 0

    async def set_up(self) -> None:
        await record.note(self._database, "changed", {"limit:shared": Terms(1), "limit:api": Terms(rate=API)})
        self._shared = await self._flows.limit(name="shared", max_concurrency=1)
        await self._flows.limit(name="api", rate_limit=API.per_second, rate_burst=int(API.burst))
        self._queues = [await self._flows.queue(f"q{number}") for number in range(LANES)]

    async def round(self, number: int) -> bool:
        """Enqueue some tasks, every other time while the limit is paused; return whether they all ended."""
        paused = number % 2 == 1
        if paused:
            await self._change(Terms(1, paused=True))
        await self._store([self._make(rates=True) for _ in range(self._dice.randint(3, 6))], self._queues)
        if paused:
            await asyncio.sleep(0.03)
            await self._change(Terms(1 + number % 3))
        await self._delete_one()
        return await self._ended()

    async def lonely_round(self) -> bool:
        """Enqueue tasks of one lane, one by one, so that often only one waits; return whether they all ended."""
        for _ in range(3):
            await self._store([self._make(rates=False)], self._queues[:1])
            await asyncio.sleep(self._dice.uniform(0, 0.004))
        await self._delete_one()
        return await self._ended()

    async def _ended(self) -> bool:
        while self._left:
            self._happened.clear()
            try:
                async with asyncio.timeout(self._still_seconds):
                    await self._happened.wait()
            except TimeoutError:
                return False
        return True

    async def claim(self, number: int) -> None:
        """Claim and settle for ever. Mutants make statements fail, too, which is no fault of the record."""
        core = self._flows.cores[number % REPLICAS]
        while True:
            await asyncio.sleep(self._dice.uniform(0, 0.005))
            with contextlib.suppress(asyncpg.PostgresError):
                claimed = (await claim(core, self._dice.choice(self._queues), self._dice.randint(1, 8))).tasks
                if claimed:
                    await asyncio.sleep(self._dice.choice([0, 0, 0.003]))
                    # one in five goes back to be claimed again
                    kinds = {task.task_id: "refund" if self._dice.random() < 0.2 else "succeeded" for task in claimed}
                    await self._settle(
                        core, [AttemptEnd(task.task_id, task.token, kinds[task.task_id], "ended") for task in claimed]
                    )
                    self._left -= {task_id for task_id, kind in kinds.items() if kind == "succeeded"}
                    self._happened.set()

    async def fold_outside(self) -> None:
        while True:
            with contextlib.suppress(asyncpg.PostgresError):
                tenant_id = self._flows.caller.tenant_id
                await self._flows.cores[-1].db.fetchval("select got from sluice.fold_outside($1)", tenant_id)
            await asyncio.sleep(0)

    def _make(self, *, rates: bool) -> Task:
        self._number += 1
        uses: tuple[Use, ...] = (Use("limit:shared"),)
        if rates and self._dice.random() < 0.5:
            uses += (Use("limit:api", cost=2),)
        return Task(self._number, "", uses, f"k{self._number}")

    async def _store(self, tasks: Sequence[Task], queues: Sequence[int]) -> None:
        core = self._flows.core
        versions = {row["id"]: row["version"] for row in await core.db.fetch("select id, version from sluice.queues")}
        entries = []
        for task in tasks:
            uses = tuple(LimitUse(use.limit.removeprefix("limit:"), use.key, use.cost) for use in task.uses)
            queue, task_id = self._dice.choice(queues), core.ids.uuid7(int(core.clock.seconds() * 1000))
            options = encode_options(Options(key=task.key, limits=uses))
            payload = msgspec.json.encode(task)
            entries.append(Entry(task_id, queue, versions[queue], 0, payload, None, None, options=options))
        self._left |= {entry.task_id for entry in entries}
        assert (await enqueues.enqueue(core.db, str(uuid4()), entries)).verdicts == {}

    async def _change(self, terms: Terms) -> None:
        await record.note(self._database, "changing", {"limit:shared": terms})
        columns = f"max_concurrency = {terms.max_concurrency}, paused = {terms.paused}"
        done = False
        while not done:
            with contextlib.suppress(asyncpg.PostgresError):
                await self._flows.change(f"update sluice.limits set {columns} where name = 'shared'", self._shared)
                done = True
        await record.note(self._database, "changed", {"limit:shared": terms})

    async def _delete_one(self) -> None:
        """Every other time, cancel one of the tasks."""
        if self._dice.random() < 0.5 or not self._left:
            return
        task_id = self._dice.choice(sorted(self._left))
        # it may be held for longer than a cancel waits
        with contextlib.suppress(Busy):
            if await cancel(self._flows.core.db, self._flows.caller.tenant_id, [task_id], "requested"):
                self._left.discard(task_id)
                self._happened.set()

    async def _settle(self, core: Core, ends: list[AttemptEnd]) -> None:
        while True:
            with contextlib.suppress(asyncpg.PostgresError):
                await settle(core.db, ends)
                return
