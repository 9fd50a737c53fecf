"""The overview of a tenant: what it shows, how much it asks of the database, and who shares it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.errors import Refusal
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.engine.minutes import Minutes
from app.engine.snapshot import Snapshot
from app.runtime import alarms, looks, viewers
from app.runtime import overview as fleets
from app.runtime.core import Core
from app.service import events, handlers, overview, queues
from app.store import looks as stored_looks
from app.store import stats
from app.store.failures import Unavailable
from app.store.pool import Pool
from tests.cores import enqueue
from tests.runtime.test_counting import end_tasks, move_minutes
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture
async def other(core: Core) -> Caller:
    (row,) = await core.db.fetch("insert into sluice.tenants (name) values ('other') returning id")
    return Caller(row["id"], "other", "manage")


async def queue_id_of(core: Core, name: str) -> int:
    return int(await core.db.fetchval("select id from sluice.queues where name = $1", name))


async def test_the_overview_shows_every_queue_with_counts_rates_and_percentiles(
    core: Core, caller: Caller, other: Caller
) -> None:
    await handlers.put(core, caller, "hook", HandlerDefinition("https://example.com/", max_concurrency=7), None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook", max_concurrency=4), ANY)
    await queues.put(core, caller, "pull", QueueDefinition(), ANY)
    await queues.put(core, other, "theirs", QueueDefinition(), ANY)
    mail = await queue_id_of(core, "mail")
    ids = await enqueue(core, caller, "pull", 5)
    run = "update sluice.tasks set state = 1, lease_token = gen_random_uuid() where id = any($1::uuid[])"
    await core.db.fetch(run, ids[:2])
    await enqueue(core, other, "theirs", 3)
    await end_tasks(core, mail, 4, 3)
    await end_tasks(core, mail, 5, 2)
    await queues.pause(core, caller, "mail")
    for _ in range(30):
        core.stats.started(mail, 0.5)
        core.stats.ended(mail, "succeeded", 2.0, None)
    core.stats.retried(mail)
    core.stats.ended(mail, "dead", 2.0, "fatal_status")
    core.stats.enqueued(mail, 40)
    await core.stats.flush(core.db)

    seen = await overview.overview(core, caller)
    assert [row.queue for row in seen.queues] == ["mail", "pull"]
    first, second = seen.queues
    assert (first.paused, first.handler, first.handler_enabled) == (True, "hook", True) and first.paused_at
    assert (first.max_concurrency, first.tasks.dead, first.dead_lately) == (4, 3, 1)
    assert (second.tasks.ready, second.tasks.running, second.tasks.dead) == (3, 2, 0)
    assert second.oldest_ready_age_seconds is not None and second.oldest_ready_age_seconds >= 0
    assert 40 / 6.1 <= first.per_minute.enqueued <= 40 / 5
    assert first.per_minute.retried > 0 and first.success_share == pytest.approx(30 / 32)
    assert first.wait_seconds.p50 == pytest.approx(0.5, rel=0.13)
    assert first.run_seconds.p95 == pytest.approx(2.0, rel=0.13)
    assert (seen.totals.ready, seen.totals.running) == (3, 2)
    assert ("handler", "hook", 7, 0) in [(limit.level, limit.name, limit.max, limit.used) for limit in seen.limits]
    assert {alarm["code"] for alarm in seen.alarms} >= {"tasks_dying"}
    assert seen.database and seen.database.size_bytes > 0 and seen.replicas == []
    assert seen.verdicts.liveness.state == "stuck", "a core alone is no replica"


async def test_what_belongs_to_operators_is_not_shown_to_others(
    core: Core, caller: Caller, other: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "FULL_CONNECTIONS_SHARE", 0.0)
    await Snapshot(core).look()
    seen = await overview.overview(core, other)
    assert not seen.replicas and not seen.database and seen.queues == []
    assert seen.alarms == []
    assert (await overview.overview(core, caller)).alarms[0]["code"] == "connections_short"


async def test_while_the_database_does_not_answer_viewers_have_an_alarm(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewers, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(looks, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(looks, "SHARE", 1e9)
    away, look = False, stored_looks.look

    async def answering(*args: Any, **kwargs: Any) -> Any:
        if away:
            raise Unavailable("away")
        return await look(*args, **kwargs)

    async def still() -> None:
        return None

    monkeypatch.setattr(stored_looks, "look", answering)
    polling = asyncio.ensure_future(core.viewers.run())
    async with aclosing(events.watch(core, caller, None, None, still)) as stream:

        async def told() -> tuple[str, bool]:
            while True:
                event = await anext(stream)
                if event.kind == "alarm":
                    alarm = json.loads(event.data)
                    return alarm["code"], alarm["active"]

        while (await anext(stream)).kind != "overview":
            pass
        away = True
        with pytest.raises(Unavailable):
            await overview.overview(core, caller)
        assert await told() == ("database_unreachable", True)
        away = False
        assert await told() == ("database_unreachable", False)
    polling.cancel()


async def test_a_confined_key_is_shown_its_queues_alone(core: Core, caller: Caller) -> None:
    for name in ("mail", "bills"):
        await queues.put(core, caller, name, QueueDefinition(), ANY)
        await enqueue(core, caller, name, 2)
    await queues.pause(core, caller, "bills")
    mail, bills = await queue_id_of(core, "mail"), await queue_id_of(core, "bills")
    core.stats.enqueued(mail, 2)
    core.stats.enqueued(bills, 40)
    await core.stats.flush(core.db)
    confined = replace(caller, queues=("mail*",))
    seen = await overview.overview(core, confined)
    assert [row.queue for row in seen.queues] == ["mail"] and seen.totals.ready == 2
    assert "bills" not in (await overview.shown(core, confined)).body.decode()
    assert not seen.replicas and not seen.database
    assert {alarm.get("queue") for alarm in (await overview.overview(core, caller)).alarms} == {"bills"}
    assert sum(point.enqueued for point in (await overview.series(core, confined, 5)).points) == 2
    with pytest.raises(Refusal, match="bills"):
        await overview.queue_series(core, confined, "bills", 5)


async def test_as_many_statements_are_run_for_a_thousand_queues_as_for_one(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    fetch = Pool.fetch

    async def counted(pool: Pool, sql: str, *args: Any, **more: Any) -> Any:
        if pool in vars(core.db).values():  # and not that of a replica which other tests share
            statements.append(sql.splitlines()[0])
        return await fetch(pool, sql, *args, **more)

    monkeypatch.setattr(looks, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(looks, "SHARE", 1e9)
    monkeypatch.setattr(Pool, "fetch", counted)
    await queues.put(core, caller, "q0", QueueDefinition(), ANY)
    ran = []
    for count in (1, 1000):
        if count > 1:
            await core.db.fetch(
                "insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, "
                "cancelled_days, dead_days, etag) select tenant_id, 'q' || n, retry, max_attempts, idempotency_seconds, "
                "succeeded_days, cancelled_days, dead_days, etag from sluice.queues, generate_series(1, 999) n"
            )
        statements.clear()
        assert len((await overview.overview(core, caller)).queues) == count
        await overview.series(core, caller, 60)
        await overview.queue_series(core, caller, "q0", 60)
        ran.append(list(statements))
    assert ran[0] == ran[1]
    assert ran[0].count("-- look_at_tenant") == 1


async def test_all_who_look_at_once_share_one_reading(core: Core, caller: Caller, other: Caller) -> None:
    seen = await asyncio.gather(*(overview.shown(core, caller) for _ in range(20)))
    assert len({id(one) for one in seen}) == 1, "read once and rendered once"
    assert (await overview.shown(core, caller)) is seen[0], "and kept for two seconds"
    assert (await overview.shown(core, other)) is not seen[0]


async def test_minutes_that_are_over_are_not_read_again(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    mail = await queue_id_of(core, "mail")
    for _ in range(3):
        core.stats.started(mail, 1.0)
        await core.stats.flush(core.db)
        await move_minutes(core, "1 minute")
    monkeypatch.setattr(looks, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(looks, "SHARE", 1e9)
    first = await overview.overview(core, caller)
    assert first.queues[0].wait_seconds.p50 == pytest.approx(1.0, rel=0.13)
    await core.db.fetch("delete from sluice.queue_minutes where minute < clock_timestamp() - interval '2 minutes'")
    again = await overview.overview(core, caller)
    assert again.queues[0].per_minute.started >= first.queues[0].per_minute.started * 0.6
    core.stats.started(mail, 60.0)
    await core.stats.flush(core.db)
    assert ((await overview.overview(core, caller)).queues[0].wait_seconds.p95 or 0) > 30


async def test_series_have_every_minute_with_what_happened_and_how_much_waited(
    core: Core, caller: Caller, start_core: Callable[[], Awaitable[Core]]
) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await queues.put(core, caller, "quiet", QueueDefinition(), ANY)
    mail, quiet = await queue_id_of(core, "mail"), await queue_id_of(core, "quiet")
    await enqueue(core, caller, "mail", 3)
    for ago in range(3):
        core.stats.enqueued(mail, 10 + ago)
        core.stats.started(mail, 1.0)
        core.stats.ended(mail, "succeeded", 2.0, None)
        core.stats.retried(quiet)
        await core.stats.flush(core.db)
        if ago < 2:
            await move_minutes(core, "1 minute")
    fleet = await fleets.read_fleet(core.db)
    twin = await start_core()
    assert [await stats.sample(each.db, fleet.queues) for each in (core, twin)] == [True, False], "one replica does it"
    await Minutes(core).sample(fleet.queues)
    minute = core.clock.now().replace(second=0, microsecond=0)
    await stats.fold_minutes(core.db, minute - timedelta(minutes=9), minute)
    await stats.fold_minutes(core.db, minute - timedelta(minutes=9), minute)

    found = await overview.queue_series(core, caller, "mail", 4)
    assert (found.queue, len(found.points)) == ("mail", 4)
    *past, last = found.points
    assert [point.enqueued for point in found.points] == [0, 10, 11, 12]
    assert (last.started, last.succeeded, last.retried, last.ready, last.running) == (1, 1, 0, 3, 0)
    assert last.wait_p50 == pytest.approx(1.0, rel=0.13) and last.run_p95 == pytest.approx(2.0, rel=0.13)
    assert past[0].wait_p50 is None and past[0].ready is None, "nobody looked then"
    assert [(p.ready, p.retried) for p in (await overview.queue_series(core, caller, "quiet", 1)).points] == [(0, 1)]
    whole = await overview.series(core, caller, 4)
    assert [(point.enqueued, point.retried) for point in whole.points] == [(0, 0), (10, 1), (11, 1), (12, 1)]
    assert whole.points[1].wait_p95 == pytest.approx(1.0, rel=0.13) and whole.points[-1].ready == 3
    await core.db.fetch("delete from sluice.queue_minutes where minute < $1", minute - timedelta(minutes=1))
    assert (await overview.series(core, caller, 4)).points[1].enqueued == 10, "it was summed when it was over"


async def test_a_slow_viewer_is_sent_the_newest_and_nothing_in_between(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewers, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(looks, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(looks, "SHARE", 1e9)
    monkeypatch.setattr(events, "OVERVIEW_SECONDS", 0.0)
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    polling = asyncio.ensure_future(core.viewers.run())

    async def still() -> None:
        return None

    async with aclosing(events.watch(core, caller, None, None, still)) as stream:
        kinds = [(await anext(stream)).kind, (await anext(stream)).kind]
        while kinds[-1] != "overview":
            kinds.append((await anext(stream)).kind)
        [viewer] = core.viewers._viewers
        for count in range(1, 6):
            await enqueue(core, caller, "mail")

            def shows(count: int = count) -> bool:
                return viewer.look is not None and viewer.look.seen.queues[0].ready == count

            await poll(shows)
        while (event := await anext(stream)).kind != "overview":
            pass
        assert json.loads(event.data)["totals"]["ready"] == 5
    polling.cancel()
    await poll(lambda: not core.viewers._looking and not core.looks._tenants[caller.tenant_id].reading)
    assert core.viewing.taken == 0 and not core.viewers._viewers
