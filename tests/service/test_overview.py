"""The overview of a tenant: what it shows, how much it asks of the database, and who shares it."""

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import handlers, overview, queues
from tests.cores import enqueue
from tests.runtime.test_counting import end_tasks

pytestmark = pytest.mark.anyio


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


async def test_what_belongs_to_operators_is_not_shown_to_others(core: Core, other: Caller) -> None:
    seen = await overview.overview(core, other)
    assert not seen.replicas and not seen.database and seen.queues == []
    assert not any("replica" in alarm for alarm in seen.alarms)
