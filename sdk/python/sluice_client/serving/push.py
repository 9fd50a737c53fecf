"""Pushed tasks: from a request to its response, whatever the web framework.

A request is refused before its body is read if it cannot be Sluice's, and before anything runs if its signature is wrong. Then its
task runs, or all tasks of its group at once, and the response says how they ended. When one of them asks to hold, the response
says that instead, and the outcomes are reported with the lease tokens, as a pull worker does.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from sluice_client.context import Delivery
from sluice_client.outcomes import Outcome
from sluice_client.serving import deliveries
from sluice_client.serving.contact import Contact
from sluice_client.serving.deliveries import Malformed, Pushed
from sluice_client.serving.leases import Lease, Leases
from sluice_client.serving.routing import find, unknown
from sluice_client.serving.running import run
from sluice_client.serving.settlements import Reply, answer, group_reply, reply
from sluice_client.serving.verify import NotSigned, Verifier
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport

MAX_BODY_BYTES = 6_000_000
"""The tasks of a group have up to 4 MiB, and a task alone up to 1 MiB unless the service is set otherwise."""
REPORTED_SECONDS = 60.0
"""How long a task that has reported progress keeps its lease, at least, if the service dies during the call."""
RELEASE_SECONDS = 5.0

log = logging.getLogger("sluice_client.serving")


class Push:
    """What all mounts share. Raises ValueError for secrets that are none."""

    def __init__(self, registry: Registry, transport: Transport, secrets: Iterable[str], max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._registry = registry
        self._transport = transport
        self._verifier = Verifier(secrets)
        self._leases: Leases | None = None
        self._held: set[asyncio.Task[None]] = set()

    def refuse(self, method: str, headers: Mapping[str, str]) -> Reply | None:
        """Return the response to a request whose body need not be read. Names of headers are in lower case."""
        if method != "POST":
            return answer(405, {"error": "Sluice delivers tasks here, by POST"}, allow="POST")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            return answer(400, {"error": "content-length is not a number"})
        if int(length[:20]) > self.max_body_bytes:
            return self.too_large()
        try:
            self._verifier.check_head(headers)
        except NotSigned as error:
            return _unsigned(error)
        return None

    def too_large(self) -> Reply:
        return answer(413, {"error": f"the body has more than {self.max_body_bytes} bytes"})

    async def answer(self, headers: Mapping[str, str], body: bytes) -> Reply:
        """Run what a request carries, and return the response. If this is cancelled, its tasks are, too."""
        try:
            sent_at = self._verifier.check(headers, body)
            if deliveries.is_group(headers):
                return await self._respond(deliveries.of_group(headers, body, sent_at), group_reply)
            pushed = deliveries.of_request(headers, body, sent_at)
        except NotSigned as error:
            return _unsigned(error)
        except Malformed as error:
            return answer(400, {"error": str(error)})
        if find(self._registry, pushed.delivery) is None:
            outcome = unknown(self._registry, pushed.delivery)
            # not 5xx, which a breaker would count against all tasks of the handler
            return answer(404, {"error": outcome.error}, retry_after=f"{outcome.seconds:.0f}")
        return await self._respond([pushed], lambda outcomes: reply(outcomes[pushed.delivery.id]))

    async def _respond(self, tasks: list[Pushed], shape: Callable[[Mapping[str, Outcome]], Reply]) -> Reply:
        held: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        leases = self._leases_here()
        calls = [_Call(leases, task, held) for task in tasks]
        works = [asyncio.ensure_future(self._run(call)) for call in calls]
        ended = asyncio.ensure_future(asyncio.wait(works))
        try:
            await asyncio.wait((ended, held), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _cut(calls, works)
            raise
        if held.done() and not ended.done():
            for call, work in zip(calls, works, strict=True):
                self._settle_later(leases, call.keep(held.result()), work)
            return answer(202, {"held_seconds": held.result()}, sluice_hold=str(held.result()))
        for call in calls:
            call.end()
        return shape({call.delivery.id: work.result() for call, work in zip(calls, works, strict=True)})

    def _leases_here(self) -> Leases:
        """Return the leases that are renewed in this event loop."""
        if self._leases is None or not self._leases.is_here():
            self._leases = Leases(self._transport, Contact())
        return self._leases

    async def _run(self, call: "_Call") -> Outcome:
        definition = find(self._registry, call.delivery)
        if definition is None:
            return unknown(self._registry, call.delivery)
        return await run(definition, call.delivery, call)

    def _settle_later(self, leases: Leases, lease: Lease, work: "asyncio.Future[Outcome]") -> None:
        settling = asyncio.ensure_future(_settled(leases, lease, work))
        self._held.add(settling)
        settling.add_done_callback(self._held.discard)


class _Call:
    """One task of a request, while it runs: its controls."""

    def __init__(self, leases: Leases, pushed: Pushed, held: "asyncio.Future[float]") -> None:
        self.delivery: Delivery = pushed.delivery
        self._token = pushed.lease_token
        self._leases = leases
        self._held = held
        self._lease: Lease | None = None
        self.cut = False
        """Nobody waits for the response any more."""

    @property
    def cancelled(self) -> bool:
        return self.cut or (self._lease is not None and self._lease.cancelled)

    def progress(self, value: object) -> None:
        self._leases.call(lambda: self.keep(REPORTED_SECONDS).progress(value))

    def hold(self, seconds: float) -> None:
        self._leases.call(self._hold, seconds)

    def keep(self, seconds: float) -> Lease:
        """Return the lease of the task. From the first time on, it is renewed here."""
        if self._lease is None:
            self._lease = Lease(self._leases, self.delivery.id, self._token, seconds)
            self._lease.has_left(seconds)
            self._leases.hold(self._lease)
        return self._lease

    def end(self) -> None:
        """The response has said how it ended."""
        if self._lease is not None:
            self._lease.over = True
            self._leases.forget(self._lease)

    def _hold(self, seconds: float) -> None:
        lease = self.keep(seconds)
        lease.seconds = seconds
        if self._held.done():
            lease.hold(seconds)
        else:
            lease.has_left(seconds)
            self._held.set_result(seconds)


async def _settled(leases: Leases, lease: Lease, work: "asyncio.Future[Outcome]") -> None:
    """Report how a held task ends. If the event loop ends before it, give the task back."""
    lease.on_lost = work.cancel
    try:
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        lease.stopped = True
        work.cancel()
        await asyncio.wait((work,))
        outcome = None if work.cancelled() else work.result()
        await asyncio.wait((asyncio.ensure_future(leases.settle(lease, outcome)),), timeout=RELEASE_SECONDS)
        raise
    lease.on_lost = None
    try:
        if not work.cancelled():
            await leases.settle(lease, work.result())
    finally:
        leases.forget(lease)


async def _cut(calls: list[_Call], works: "Sequence[asyncio.Future[Outcome]]") -> None:
    """End the tasks of a request whose response nobody waits for."""
    for call, work in zip(calls, works, strict=True):
        call.cut = True
        work.cancel()
    await asyncio.wait(works)
    for call in calls:
        call.end()


def _unsigned(error: NotSigned) -> Reply:
    log.warning("a request was refused: %s", error)
    return answer(401, {"error": str(error)})
