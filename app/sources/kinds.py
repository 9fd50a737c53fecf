"""The interface of every kind of source: how tasks come in from a queue elsewhere.

A kind is a module beside this one. It knows nothing of tasks or of the database: it receives messages, keeps them hidden from
others while they are enqueued, and acknowledges them once the tasks are committed. What becomes of a message is decided above
(app/runtime/receiving.py, app/engine/receiver.py). The guarantee is at least once in, once enqueued: a message that is not
acknowledged comes again, with the same key.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import msgspec

from app.domain.errors import Refusal
from app.domain.sources import SourceDefinition

WAIT_SECONDS = 20.0
"""The longest that a receive waits for a first message."""
MAX_COUNT = 2**53
"""A server that says more does not know."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message received and not yet acknowledged. Its repr leaves out what must not be logged."""

    key: str
    """The idempotency key: the same whenever the message comes, and of no other, such as `sqs:<arn>:<message id>`."""
    body: bytes
    handle: Any
    """What the source acknowledges it by."""
    headers: dict[str, str] = {}
    """Of the message, under the names that it gave them. What a task cannot carry is left out above."""
    group: str | None = None
    """Its messages must not overtake each other."""
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    sent_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Message({self.key}, {len(self.body)} bytes)"


class Depth(NamedTuple):
    """What waits at the source. None: it does not say."""

    lag: int | None
    """Messages that nobody has received or that nobody has acknowledged yet, as the source counts them."""
    oldest_age_seconds: float | None


class SourceError(Exception):
    """A failure of the source, in words for people and without secrets."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
        """Only a person can mend it: access denied, no such queue. It is tried again all the same, but less often."""


class Source(Protocol):
    """One source, opened by one replica, in one event loop. Each method raises SourceError; none of them is ever cancelled."""

    extend_seconds: float | None
    """How often `extend` is called while messages are being enqueued; None: never."""

    async def receive(self, most: int) -> list[Message]:
        """Wait up to WAIT_SECONDS for messages, and return at most so many, in their order."""

    async def extend(self, messages: Sequence[Message]) -> None:
        """Keep messages from being given to others for another while."""

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the source that their tasks are committed. Called again with those that failed, if it raises."""

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Let others receive them at once."""

    def take_lost(self) -> int:
        """Return how many messages the source has said are gone, since the last call."""

    async def measure(self) -> Depth:
        """Return what waits."""

    async def check(self) -> None:
        """Check that the source can be reached and read, and take nothing from it."""

    async def aclose(self) -> None:
        """Close all connections. Nothing else is called afterwards."""


class Kind(Protocol):
    """A kind of source, on one replica."""

    def check(self, definition: SourceDefinition) -> None:
        """Check a complete definition before it is saved. Raises Refusal: invalid, egress_denied, bridge_unavailable."""

    def open(self, definition: SourceDefinition, name: str, tenant: str) -> Source:
        """Return a source for a valid definition. It connects when it is first used. `name` is the replica's; `tenant` is charged
        for the lookups of its host."""

    async def aclose(self) -> None:
        """Close what its sources share."""


class Kinds:
    """The kinds that this replica has, by name."""

    def __init__(self, kinds: Mapping[str, Kind] = MappingProxyType({})) -> None:
        self._kinds = kinds

    def of(self, definition: SourceDefinition) -> Kind:
        """Raises Refusal (bridge_unavailable)."""
        kind = self._kinds.get(definition.kind)
        if kind is None:
            raise Refusal("bridge_unavailable", f"this replica has no sources of kind {definition.kind}")
        return kind

    async def aclose(self) -> None:
        for kind in self._kinds.values():
            await kind.aclose()
