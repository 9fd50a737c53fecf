"""The leases held here: renewed in time, and settled. For pulled tasks, and for pushed ones that hold."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any

import httpx2

from sluice_client.errors import ApiError, LeaseLost, QueueFull, SluiceError
from sluice_client.outcomes import Outcome
from sluice_client.serving.contact import Contact, pause, will_pass
from sluice_client.serving.settlements import refused, settlement
from sluice_client.transport import Transport

PROGRESS_SECONDS = 1.0
"""Progress is sent at most this often."""
LONGEST_REQUEST_SECONDS = 10.0
SHORTEST_REQUEST_SECONDS = 1.0

log = logging.getLogger("sluice_client.worker")


class Lease:
    """What is held of one task. Its methods `progress` and `hold` are called from the task's thread, all others from the event
    loop's."""

    def __init__(self, leases: "Leases", task_id: str, token: str, seconds: float) -> None:
        self._leases = leases
        self.id = task_id
        self.token = token
        self.seconds = seconds
        """How long it is renewed for."""
        self.ends = self.renew_at = self.renewed_at = 0.0
        """Monotonic."""
        self.news: list[Any] = []
        """The progress to report with the next renewal: one value, or none."""
        self.renewing = self.settling = False
        self.failures = 0
        self.over = False
        """It was settled, or lost."""
        self.stopped = False
        """It is held, but the task is to end now: the worker ends."""
        self.on_lost: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        return self.over or self.stopped

    def progress(self, value: object) -> None:
        self._leases.call(self._report, value)

    def hold(self, seconds: float) -> None:
        self._leases.call(self._extend, seconds)

    def has_left(self, seconds: float) -> None:
        """Note that the service has said so now."""
        now = monotonic()
        self.ends, self.renewed_at, self.renew_at = now + seconds, now, now + seconds / 3

    def lose(self, reason: str) -> None:
        """Stop the task: the lease is gone."""
        if not self.over:
            self.over = True
            self._leases.forget(self)
            log.warning("the lease of task %s is lost (%s): what comes of it here does not count", self.id, reason)
            if self.on_lost is not None:
                self.on_lost()

    def _report(self, value: object) -> None:
        self.news = [value]
        self._leases.renew_at(self, self.renewed_at + PROGRESS_SECONDS)

    def _extend(self, seconds: float) -> None:
        self.seconds = seconds
        self._leases.renew_at(self, monotonic())


class Leases:
    """All leases of a worker, or of a mount. One timer serves them all: it rings when the first is to be renewed."""

    def __init__(self, transport: Transport, contact: Contact) -> None:
        self._transport = transport
        self._contact = contact
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._held: set[Lease] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._renewals: set[asyncio.Task[None]] = set()

    def is_here(self) -> bool:
        """Whether this is the event loop that they belong to."""
        return self._loop is asyncio.get_running_loop()

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call it in the event loop, from any thread: at once from the loop's own."""
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    def hold(self, lease: Lease) -> None:
        """Renew it from now on."""
        self._held.add(lease)
        self._ring(lease.renew_at)

    def forget(self, lease: Lease) -> None:
        """Renew it no longer."""
        self._held.discard(lease)

    def renew_at(self, lease: Lease, when: float) -> None:
        """Renew it then, if not before."""
        if lease in self._held:
            lease.renew_at = min(lease.renew_at, when)
            self._ring(lease.renew_at)

    def close(self) -> None:
        """Renew nothing any more."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    async def settle(self, lease: Lease, outcome: Outcome | None) -> bool:
        """Report an outcome, or give the task back (None), until the service has heard it. False: the lease was lost before.

        The lease is renewed meanwhile, so nobody else gets the task.
        """
        verb, body = ("release", None) if outcome is None else settlement(outcome)
        if lease.news and not lease.renewing:  # the next attempt may go on from there
            lease.renewing = True
            await self._renew(lease)
        failures = 0
        while not lease.over:
            lease.settling = True
            try:
                await self._say(lease, verb, body)
            except LeaseLost as lost:
                lease.lose(lost.code)
            except SluiceError as error:
                if will_pass(error):
                    lease.settling, failures = False, failures + 1
                    if not isinstance(error, QueueFull):  # then there is no room for follow-up work yet
                        self._contact.failed(error)
                    await asyncio.sleep(pause(failures, error))
                elif verb == "complete" and isinstance(error, ApiError):
                    log.error("the completion of task %s is refused: %s", lease.id, error)
                    verb, body = settlement(refused(error.status, error.detail, error.errors))
                else:
                    lease.lose(str(error))
            else:
                self._contact.reached()
                lease.over = True
                self.forget(lease)
                return True
        return False

    def _ring(self, when: float) -> None:
        if self._timer is not None:
            if self._rings_at <= when:
                return
            self._timer.cancel()
        self._rings_at = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._renew_due)

    def _renew_due(self) -> None:
        self._timer, now = None, monotonic()
        for lease in self._held:
            if lease.renew_at <= now and not lease.renewing:
                lease.renewing = True
                renewal = self._loop.create_task(self._renew(lease))
                self._renewals.add(renewal)
                renewal.add_done_callback(self._renewals.discard)
        waiting = [lease.renew_at for lease in self._held if not lease.renewing]
        if waiting:
            self._ring(min(waiting))

    async def _renew(self, lease: Lease) -> None:
        news, lease.news = lease.news, []
        try:
            response = await self._say(lease, "renew", _renewal(lease.seconds, news))
            lease.has_left(seconds_left(response.json()["lease"]["expires_at"], response))
        except LeaseLost as lost:
            if not lease.settling:  # else it may be what was settled just now
                lease.lose(lost.code)
        except (SluiceError, KeyError, TypeError, ValueError) as error:
            if news and not will_pass(error):
                log.warning("the progress of task %s is left out: %s", lease.id, error)
                lease.renew_at = monotonic()
            else:
                lease.news = lease.news or news
                self._not_renewed(lease, error)
        else:
            lease.failures = 0
            self._contact.reached()
        finally:
            lease.renewing = False
            if lease in self._held:
                self._ring(lease.renew_at)

    def _not_renewed(self, lease: Lease, error: Exception) -> None:
        self._contact.failed(error)
        lease.failures += 1
        now = monotonic()
        if now >= lease.ends:
            lease.lose("it could not be renewed in time")
        else:
            lease.renew_at = min(lease.ends, now + pause(lease.failures, error))

    async def _say(self, lease: Lease, verb: str, body: bytes | None) -> httpx2.Response:
        seconds = min(LONGEST_REQUEST_SECONDS, max(SHORTEST_REQUEST_SECONDS, lease.ends - monotonic()))
        return await self._transport.request(
            "POST",
            f"/tasks/{lease.id}/{verb}",
            content=body,
            headers={"sluice-lease-token": lease.token},
            repeatable=False,  # repeated here, as long as the lease lasts
            timeout=seconds,
        )


def seconds_left(until: str, response: httpx2.Response) -> float:
    """Return how long it is until then, by the clock of the service: the clock here may be wrong.

    The header `date` is cut to whole seconds, so the answer is up to one second too short. If a proxy has removed it, the clock
    here has to do. Raises ValueError.
    """
    end, date = datetime.fromisoformat(until.replace("Z", "+00:00")), response.headers.get("date")
    now = time() if date is None else parsedate_to_datetime(date).timestamp()
    return max(0.0, end.timestamp() - now - 1.0)


def _renewal(seconds: float, news: list[Any]) -> bytes:
    body = {"seconds": seconds, **({"progress": news[0]} if news else {})}
    return json.dumps(body, allow_nan=False).encode()
