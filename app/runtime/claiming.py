"""Claims that lose nothing: a claim whose answer never came is released.

A claim has an id, created before it is sent, and an instant after which it grants nothing. Without an answer it may still commit
until that instant and the end of its statement, so whatever it took is released by its id, repeatedly, until then. What a dead
replica took is left to the reaper.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from app.domain.turns import Turns
from app.runtime.reaping import Reaping
from app.runtime.replica import Replica
from app.runtime.signals import Signals
from app.store import tasks
from app.store.callbacks import Told
from app.store.clock import Clock
from app.store.db import MAX_WAITING, Database
from app.store.failures import Busy, Unavailable
from app.store.session import COMMAND_SECONDS
from app.store.tasks import AttemptEnd, Claim, LaneWant
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.metrics import Metrics

GRACE_SECONDS = 5.0
"""How long after it is sent a claim may still grant, so that a statement stuck on its way takes nothing later."""
RELEASE_EVERY_SECONDS = 1.0
REAP_LIMIT = 100
REAPS = 3
"""How often one pull may reap expired leases that block it."""

log = get_logger(__name__)


class Claiming:
    def __init__(
        self, db: Database, clock: Clock, replica: Replica, metrics: Metrics, signals: Signals, reaping: Reaping
    ) -> None:
        self._db = db
        self._clock = clock
        self._replica = replica
        self._metrics = metrics
        self._signals = signals
        self._reaping = reaping
        self._releases: set[asyncio.Task[None]] = set()
        places = db.connections.pulls
        self._pulls = Turns("pulling tasks", places=places, share=max(1, places - 1), max_waiting=MAX_WAITING)

    async def pull(self, tenant_id: int, queue_id: int, want: int, lease_seconds: float) -> Claim:
        """Claim for a worker, in its tenant's turn, so that one tenant's thousands of workers do not block the others.

        If leases have run out that are in its way, they are reaped and it is repeated for what is missing. Raises what the first
        statement raises.
        """
        async with self._pulls.turn(tenant_id):
            (claim,) = await self.claim([LaneWant(queue_id, 0, want)], lease_seconds, pull=True)
            for _ in range(REAPS):
                if claim.lapsed is None or not await self._reap(claim.lapsed):
                    break
                more = await self._claim_more(claim, LaneWant(queue_id, 0, want - len(claim.tasks)), lease_seconds)
                if more is None:
                    break
                claim = more
            return claim

    async def _claim_more(self, claim: Claim, lane: LaneWant, lease_seconds: float) -> Claim | None:
        """Claim again for a pull; return the claim with the tasks of both. None if that fails while there are tasks to return."""
        try:
            (more,) = await self.claim([lane], lease_seconds, pull=True)
        except Exception:
            if not claim.tasks:
                raise
            return None
        more.tasks = claim.tasks + more.tasks
        more.count = len(more.tasks)
        return more

    async def reap_lapsed(self, claims: Iterable[Claim]) -> set[int]:
        """Reap the expired leases that left some of these claims without tasks; return the tenants of which any were reaped."""
        lapsed = {claim.lapsed for claim in claims if claim.lapsed is not None and not claim.tasks}
        return {tenant_id for tenant_id in lapsed if await self._reap(tenant_id)}

    async def _reap(self, tenant_id: int) -> int:
        """Return how many were reaped; 0 on a database error, which the reaper will meet and log."""
        try:
            return len((await self._reaping.reap(REAP_LIMIT, tenant_id)).reaped)
        except Exception:
            return 0

    async def claim(self, lanes: Sequence[LaneWant], lease_seconds: float, *, pull: bool = False) -> list[Claim]:
        """Claim tasks of several lanes in one statement; return one Claim per lane, in order.

        Raises what the statement raises, after arranging the release.
        """
        with self._released_unless_answered() as claim_id:
            claims = await tasks.claim(
                self._db,
                lanes,
                owner=None if pull else self._replica.id,
                replica=self._replica.name,
                claim_id=claim_id,
                not_after=self._clock.now() + timedelta(seconds=GRACE_SECONDS),
                lease_seconds=lease_seconds,
                pull=pull,
            )
        self._claimed(lanes, claims)
        return claims

    async def settle_and_claim(
        self, outcomes: Sequence[AttemptEnd], lanes: Sequence[LaneWant], lease_seconds: float, told: Told
    ) -> tuple[dict[str, str], list[Claim]]:
        """Write outcomes and claim tasks in one transaction; return token -> verdict, and one Claim per lane, in order.

        `told` hears of the callbacks of tasks that ended. Raises what the statement raises, after arranging the release.
        """
        with self._released_unless_answered() as claim_id:
            verdicts, claims = await tasks.settle_and_claim(
                self._db,
                outcomes,
                lanes,
                owner=self._replica.id,
                replica=self._replica.name,
                claim_id=claim_id,
                not_after=self._clock.now() + timedelta(seconds=GRACE_SECONDS),
                lease_seconds=lease_seconds,
                told=told,
            )
        self._claimed(lanes, claims)
        return verdicts, claims

    def _claimed(self, lanes: Sequence[LaneWant], claims: Sequence[Claim]) -> None:
        """Count the tasks of a claim, and hint the lanes that it opened, but for those whose own turn had not ended by then."""
        self._metrics.group_written("claim", sum(len(claim.tasks) for claim in claims))
        turns = [(want.queue_id, want.handler_id) for want in lanes]
        for lane in {lane for n, claim in enumerate(claims) for lane in claim.opened if lane not in turns[n:]}:
            self._signals.lane_ready(*lane)

    @contextmanager
    def _released_unless_answered(self) -> Iterator[str]:
        """Yield the id of a claim; if the block raises, whatever the claim took is released."""
        claim_id = str(uuid.uuid4())
        try:
            yield claim_id
        except BaseException as error:
            self._spawn_release(claim_id)
            if isinstance(error, Busy):
                events.emit(log, events.CLAIM_FAILED, claim=claim_id, error=str(error))
            elif isinstance(error, Exception) and not isinstance(error, Unavailable):
                events.emit(log, events.CLAIM_FAILED, claim=claim_id, error=str(error), exc_info=error)
            raise

    def _spawn_release(self, claim_id: str) -> None:
        release = asyncio.get_running_loop().create_task(self._release(claim_id))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    async def _release(self, claim_id: str) -> None:
        until = time.monotonic() + GRACE_SECONDS + COMMAND_SECONDS
        while time.monotonic() < until:
            try:
                if queue_ids := await tasks.release_claim(self._db, claim_id):
                    events.emit(log, events.CLAIM_RELEASED, claim=claim_id, tasks=len(queue_ids))
                    self._signals.any_lane_ready()
            except Unavailable:
                pass
            await asyncio.sleep(RELEASE_EVERY_SECONDS)

    def stop(self) -> None:
        for release in self._releases:
            release.cancel()
