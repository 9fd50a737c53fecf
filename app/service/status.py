"""The status of the whole fleet, over all tenants, for operators."""

from dataclasses import asdict
from typing import Any

from app.domain.instants import format_instant
from app.runtime import overview
from app.runtime.alarms import alarms
from app.runtime.core import Core
from app.runtime.overview import depths
from app.store.replicas import ALIVE_SECONDS, ReplicaRow
from app.store.schedules import ScheduleHealth
from app.store.stats import QueueOverview
from app.version import VERSION

MAX_QUEUES = 1000
"""Listed individually; above this number, only queues that hold tasks, or are paused or disabled."""


async def status(core: Core) -> dict[str, Any]:
    """Return what GET /status shows; the caller must have been checked for scope operate. Raises Unavailable."""
    await core.stats.flush(core.db)
    fleet = await overview.read_fleet(core.db)
    queues = fleet.queues
    return {
        "version": VERSION,
        "replicas": [_replica(row) for row in fleet.replicas],
        "queues": [_queue(row) for row in queues if len(queues) <= MAX_QUEUES or _is_shown(row)],
        "schedules": [_schedule(row) for row in fleet.schedules],
        "database": asdict(fleet.database),
        "alarms": alarms(fleet, core.schedule_grace_seconds),
    }


def _schedule(row: ScheduleHealth) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "schedule": row.name,
        "paused": row.paused,
        "next_nominal_at": None if row.next_nominal_at is None else format_instant(row.next_nominal_at),
        "overdue_seconds": row.overdue_seconds,
        "missed": row.missed,
    }


def _replica(row: ReplicaRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "roles": row.roles,
        "version": row.version,
        "started_at": format_instant(row.started_at),
        "seen_at": format_instant(row.seen_at),
        "draining": row.draining,
        "in_flight": row.in_flight,
        "max_in_flight": row.max_in_flight,
        "silent": row.silent_seconds > ALIVE_SECONDS,
        "database_connections": row.connections,
    }


def _is_shown(row: QueueOverview) -> bool:
    return any(depths(row).values()) or row.paused or row.handler_enabled is False


def _queue(row: QueueOverview) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "queue": row.queue,
        "paused": row.paused,
        "handler": row.handler,
        "handler_enabled": row.handler_enabled,
        "tasks": depths(row),
        "oldest_ready_age_seconds": row.oldest_ready_age_seconds,
    }
