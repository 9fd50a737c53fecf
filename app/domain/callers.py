"""The caller of a request: a tenant, with what its key may do; and where the request came from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from app.domain.confinement import matches
from app.domain.errors import Refusal

SCOPES = ("read", "use", "manage", "operate")
"""Each scope includes those before it."""
STRANGERS: Final = None
"""Stands for the tenant in lookups of keys and tokens whose tenant is not known yet."""
Actor = Literal["key", "cli", "system"]


@dataclass(frozen=True, slots=True)
class Act:
    """What a call does: it pauses a queue of this name, for example."""

    verb: str
    noun: str
    name: str | None
    """None for what has no name."""
    replica: str | None
    """Where."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. The fields from `actor` on are for the audit; only calls that leave a row there have the last three."""

    tenant_id: int
    tenant: str
    scope: str
    key_id: str | None = None
    """None where no keys are asked for, and for what the service does itself."""
    queues: tuple[str, ...] | None = None
    """Patterns of the queues that the key is confined to; None: all of its tenant."""
    payloads: bool = True
    """Whether the key may read the content of tasks."""
    expires_at: datetime | None = None
    actor: Actor = "key"
    address: str | None = None
    """The other end of the connection."""
    request_id: str | None = None
    act: Act | None = None

    def require(self, scope: str) -> None:
        """Raise Refusal (forbidden) unless the caller's scope includes `scope`."""
        if not self.may(scope):
            raise Refusal("forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}")

    def may(self, scope: str) -> bool:
        """Return whether the caller's scope includes `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    def sees(self, queue: str) -> bool:
        """Return whether the queue of this name, and what is on it, exists for the caller."""
        return self.queues is None or matches(self.queues, queue)

    @property
    def everywhere(self) -> bool:
        """Whether the caller sees every tenant. A key confined to queues is confined to those of its own."""
        return self.scope == "operate" and self.queues is None

    def require_everywhere(self) -> None:
        """Raise Refusal (forbidden) unless the caller sees every tenant."""
        self.require("operate")
        if self.queues is not None:
            raise Refusal("forbidden", "this needs a key that is not confined to queues")
