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
        """Raise Refusal (forbidden) unless the caller may do what needs `scope`."""
        if not self.may(scope):
            confined = ", confined to queues" if self.queues is not None else ""
            raise Refusal(
                "forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}{confined}"
            )

    def may(self, scope: str) -> bool:
        """Return whether the caller's scope includes `scope`. What needs `operate` is about every tenant, so it is refused to a key
        that is confined to queues."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope) and (scope != "operate" or self.queues is None)

    def sees(self, queue: str) -> bool:
        """Return whether the queue of this name, and what is on it, exists for the caller."""
        return self.queues is None or matches(self.queues, queue)

    def require_tenant(self) -> None:
        """Raise Refusal (not_found) if the caller is confined to queues, for which nothing of the whole tenant exists."""
        if self.queues is not None:
            raise Refusal("not_found", "this key is confined to queues: nothing exists for it beside them")

    def require_payloads(self) -> None:
        """Raise Refusal (forbidden) unless the caller may read the content of tasks."""
        if not self.payloads:
            raise Refusal("forbidden", "this needs a key that may read payloads")
