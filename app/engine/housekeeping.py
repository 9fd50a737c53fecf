"""Periodic chores of every engine, each a short idempotent statement or a bounded series of them."""

from collections.abc import Awaitable, Callable
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.runtime.core import Core
from app.store import partitions, pruning, replicas, sessions, stats
from app.store.db import Database
from app.store.failures import Busy, Unavailable
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


class Housekeeping:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    async def start(self) -> None:
        """Create history partitions before any task can end, if possible; the other chores wait for their time."""
        await self._try("partitions", _make_partitions)
        self._every(3600, "partitions", _make_partitions)
        self._every(3600, "expired partitions", partial(_drop_partitions, self._core.audit_days))
        self._every(60, "idempotency keys", pruning.idempotency_keys)
        self._every(300, "receipts", pruning.receipts)
        self._every(60, "follow-up keys", pruning.followup_keys)
        self._every(300, "handlers' calls", pruning.handler_calls)
        self._every(3600, "clocks of rates", pruning.rate_clocks)
        self._every(3600, "batches", pruning.batches)
        self._every(3600, "actions", pruning.actions)
        self._every(3600, "ledgers", pruning.schedule_runs)
        self._every(3600, "minutes", stats.prune)
        self._every(3600, "sessions", sessions.prune)
        self._every(3600, "silent replicas", replicas.forget_silent)
        self._scheduler.start()

    def _every(self, seconds: int, name: str, chore: Callable[..., Awaitable[object]]) -> None:
        self._scheduler.add_job(
            self._try,
            "interval",
            (name, chore),
            seconds=seconds,
            jitter=seconds // 10,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )

    async def _try(self, name: str, chore: Callable[..., Awaitable[object]]) -> None:
        try:
            await chore(self._core.db)
        except Busy as error:
            events.emit(log, events.JOB_FAILED, job=name, error=str(error))
        except Unavailable:
            pass  # the database layer logs outages itself, once each
        except Exception as error:
            events.emit(log, events.JOB_FAILED, job=name, exc_info=error)

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)


async def _make_partitions(db: Database) -> None:
    if made := await partitions.ensure_ahead(db):
        events.emit(log, events.PARTITIONS_MADE, partitions=made)


async def _drop_partitions(audit_days: int, db: Database) -> None:
    if dropped := await partitions.drop_expired(db, audit_days=audit_days):
        events.emit(log, events.PARTITIONS_DROPPED, partitions=dropped)
