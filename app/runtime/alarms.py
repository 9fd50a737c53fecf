"""The alarms of the fleet: what needs attention, each with a sentence that says what is wrong and what to do."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from app.domain.connections import Limit
from app.domain.plurals import are, counted
from app.domain.waiting import NO_WORKER_SECONDS
from app.runtime.overview import Fleet
from app.store.breakers import HandlerOverview
from app.store.looks import SourceLook, TenantLook
from app.store.partitions import MARGIN_DAYS, Reach
from app.store.replicas import ALIVE_SECONDS, ReplicaRow
from app.store.schedules import ScheduleHealth
from app.store.sources import SourceHealth
from app.store.stats import DatabaseHealth, QueueOverview

CODES: Final = (
    "partitions_short",
    "partitions_left",
    "old_xmin",
    "connections_short",
    "no_engine",
    "replica_silent",
    "listener_lost",
    "global_limit",
    "handler_disabled",
    "no_worker",
    "queue_paused",
    "tasks_dying",
    "breaker_open",
    "schedule_overdue",
    "source_stuck",
)
"""Every code that an alarm may have."""
OLD_XMIN_SECONDS = 300.0
"""A transaction this old keeps vacuum from cleaning up after every task since then."""
FULL_CONNECTIONS_SHARE = 0.9
LATE_DAYS = 2
"""How many days the hourly history jobs may fail before that raises an alarm."""
STUCK_SECONDS = 300.0
"""How long a source may fail, or its messages find no room."""
Alarm = dict[str, Any]


def alarms(fleet: Fleet, schedule_grace_seconds: float) -> list[Alarm]:
    """Return what needs attention, most serious first."""
    return [
        *_partition_alarms(fleet.reach),
        *_database_alarms(fleet.database),
        *_connection_alarms(fleet.connections, fleet.replicas),
        *_alarms(fleet.queues, fleet.replicas),
        *_breaker_alarms(fleet.handlers),
        *_schedule_alarms(fleet.schedules, schedule_grace_seconds),
        *_source_alarms(fleet.sources),
    ]


def tenant_alarms(
    look: TenantLook, of_server: Sequence[Alarm], schedule_grace_seconds: float, *, operates: bool
) -> list[Alarm]:
    """Return what needs attention in one tenant, most serious first; without `operates`, nothing of the server and the replicas.
    `of_server`: the last `server_alarms`."""
    handlers = [
        HandlerOverview(look.tenant, h.name, h.breaker, h.max_concurrency, h.parked_seconds, h.enabled, h.running)
        for h in look.handlers
    ]
    due = [
        ScheduleHealth(s.tenant, s.name, s.paused, s.overdue_seconds, s.missed, s.next_nominal_at)
        for s in look.schedules
    ]
    found = [
        *(of_server if operates else ()),
        *(() if look.database is None else _database_alarms(look.database)),
        *_connection_alarms((), look.replicas),
        *_alarms(look.queues, look.replicas),
        *_breaker_alarms(handlers),
        *_schedule_alarms(due, schedule_grace_seconds),
        *_source_alarms(look.sources),
    ]
    return [alarm for alarm in found if operates or ("replica" not in alarm and alarm["code"] != "old_xmin")]


def server_alarms(fleet: Fleet) -> list[Alarm]:
    """Return what needs attention in the database server, but for its transactions, which every look at a tenant sees itself."""
    return [*_partition_alarms(fleet.reach), *_connection_alarms(fleet.connections, ())]


def _partition_alarms(reach: Reach) -> Iterator[Alarm]:
    if reach.ahead < reach.needed + MARGIN_DAYS - LATE_DAYS:
        yield {
            "code": "partitions_short",
            "message": f"history reaches {counted(max(reach.ahead, 0), 'day')} ahead, and tasks are kept for up to "
            f"{reach.needed}: no replica has made new days lately (job_failed in the log says why); run `sluice migrate` as the "
            "owner of the schema before tasks cannot end",
        }
    if reach.left_over > LATE_DAYS:
        yield {
            "code": "partitions_left",
            "message": f"{counted(reach.left_over, 'day')} of history that have passed are still there: replicas drop them if "
            "their role owns the schema; else run `sluice migrate` every day as the one that does",
        }


def _database_alarms(health: DatabaseHealth) -> Iterator[Alarm]:
    if health.oldest_xmin_age_seconds is not None and health.oldest_xmin_age_seconds > OLD_XMIN_SECONDS:
        yield {
            "code": "old_xmin",
            "message": f"a transaction has been open for {health.oldest_xmin_age_seconds:.0f} s: until it ends vacuum "
            "cannot clean up and claims slow down; find it in pg_stat_activity, ordered by xact_start",
        }


def _connection_alarms(limits: Sequence[Limit], alive: Sequence[ReplicaRow]) -> Iterator[Alarm]:
    for limit in limits:
        if limit.used >= FULL_CONNECTIONS_SHARE * limit.max:
            yield {
                "code": "connections_short",
                "message": f"{limit.used} of {counted(limit.max, 'connection')} to the database are in use: {limit.words}, "
                "or find out in pg_stat_activity who holds them",
            }
    for replica in alive:
        if replica.connections < replica.connections_wanted:
            yield {
                "code": "connections_short",
                "message": f"replica {replica.name} found {replica.connections} connections at its start but is set to take "
                f"{replica.connections_wanted}; make room in the database, then restart it",
                "replica": replica.name,
            }


def _alarms(queues: Sequence[QueueOverview], alive: Sequence[ReplicaRow]) -> Iterator[Alarm]:
    """Yield alarms by severity: what threatens every queue, then what stops one, then what is being lost."""
    yield from _engine_alarms(queues, alive)
    for replica in alive:
        if replica.silent_seconds > ALIVE_SECONDS:
            yield {
                "code": "replica_silent",
                "message": f"replica {replica.name} was last seen {replica.silent_seconds:.0f} s ago and did not shut "
                "down cleanly; its tasks run again elsewhere once their leases expire",
                "replica": replica.name,
            }
        elif replica.deaf:
            yield {
                "code": "listener_lost",
                "message": f"replica {replica.name} receives no NOTIFY, so it learns of other replicas' changes by polling, "
                "seconds later; see listener_lost in its log for the cause",
                "replica": replica.name,
            }
    yield from _limit_alarms(queues)
    for row in queues:
        if row.handler_enabled is False:
            why = f" ({row.disabled_reason})" if row.disabled_reason else ""
            yield _queue_alarm(
                row,
                "handler_disabled",
                f"handler {row.handler} is disabled{why}: {counted(row.ready, 'task')} {are(row.ready)} waiting for it",
            )
    yield from _worker_alarms(queues)
    for row in queues:
        if row.paused and row.ready:
            yield _queue_alarm(
                row, "queue_paused", f"the queue is paused while {counted(row.ready, 'task')} {are(row.ready)} ready"
            )
    for row in queues:
        if row.dead_lately:
            yield _queue_alarm(
                row,
                "tasks_dying",
                f"{counted(row.dead_lately, 'task')} died in the last 15 minutes; {counted(row.dead, 'dead one')} can be redriven",
            )


def _engine_alarms(queues: Sequence[QueueOverview], alive: Sequence[ReplicaRow]) -> Iterator[Alarm]:
    heard = [replica for replica in alive if replica.silent_seconds <= ALIVE_SECONDS and not replica.draining]
    if heard and all(replica.roles == "api" for replica in heard):
        ready = sum(row.ready for row in queues if row.handler is not None)
        yield {
            "code": "no_engine",
            "message": f"every replica has the role api, so nothing is delivered or fired: {counted(ready, 'task')} for "
            "handlers waiting; start a replica with the role engine or all",
        }


def _limit_alarms(queues: Sequence[QueueOverview]) -> Iterator[Alarm]:
    """Yield an alarm per tenant that is at its limit while more tasks are ready. The rows are grouped by tenant."""
    for tenant, rows in groupby(queues, attrgetter("tenant")):
        own = list(rows)
        limit, running = own[0].tenant_limit, sum(row.running for row in own)
        ready = sum(row.ready for row in own if not row.paused and row.handler_enabled is not False)
        if limit is not None and running >= limit and ready:
            yield {
                "code": "global_limit",
                "message": f"tenant {tenant} runs {running} of at most {counted(limit, 'task')} over all queues, {ready} more "
                f"waiting; PUT {_where_limited(own[0])} changes that limit",
                "tenant": tenant,
            }


def _where_limited(row: QueueOverview) -> str:
    return f"/tenants/{row.tenant}/limits" if row.tenant_limit == row.tenant_grant else "/limits"


def _worker_alarms(queues: Sequence[QueueOverview]) -> Iterator[Alarm]:
    for row in queues:
        waited = min(row.worker_silent_seconds, row.oldest_ready_age_seconds or 0.0)
        if row.handler is None and not row.paused and not row.running and waited > NO_WORKER_SECONDS:
            yield _queue_alarm(
                row,
                "no_worker",
                f"no worker has asked for tasks of this queue for {row.worker_silent_seconds:.0f} s: {counted(row.ready, 'task')} "
                f"waiting, the oldest for {row.oldest_ready_age_seconds:.0f} s",
            )


def _breaker_alarms(handlers: Sequence[HandlerOverview]) -> Iterator[Alarm]:
    for row in handlers:
        if row.state in ("open", "half_open"):
            yield {
                "code": "breaker_open",
                "message": f"the breaker of handler {row.handler} is {row.state.replace('_', '-')}: its tasks wait "
                f"until the service works again; GET /handlers/{row.handler}/health shows how its calls fail",
                "tenant": row.tenant,
                "handler": row.handler,
            }


def _schedule_alarms(due: Sequence[ScheduleHealth], grace_seconds: float) -> Iterator[Alarm]:
    for row in due:
        if row.overdue_seconds > grace_seconds:
            yield {
                "code": "schedule_overdue",
                "message": f"schedule {row.name} should have fired {row.overdue_seconds:.0f} s ago; is a replica with the role "
                "engine running?",
                "tenant": row.tenant,
                "schedule": row.name,
            }


def _source_alarms(sources: Iterable[SourceHealth | SourceLook]) -> Iterator[Alarm]:
    for row in sources:
        if not row.paused and (row.failing_seconds or 0.0) > STUCK_SECONDS:
            yield {
                "code": "source_stuck",
                "message": f"source {row.name} has brought nothing for {row.failing_seconds:.0f} s: {row.last_error}; "
                f"POST /sources/{row.name}/test shows whether it can be reached",
                "tenant": row.tenant,
                "source": row.name,
            }


def _queue_alarm(row: QueueOverview, code: str, message: str) -> Alarm:
    return {"code": code, "message": message, "tenant": row.tenant, "queue": row.queue}
