"""The caller of a request: a tenant, with what its key may do."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.confinement import matches
from app.domain.errors import Refusal

SCOPES = ("read", "use", "manage", "operate")
"""Each scope includes those before it."""
STRANGERS: Final = None
"""Stands for the tenant in lookups of keys and tokens whose tenant is not known yet."""


@dataclass(frozen=True, slots=True)
class Caller:
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

    def require(self, scope: str) -> None:
        """Raise Refusal (forbidden) unless the caller's scope includes `scope`."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise Refusal("forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}")

    def sees(self, queue: str) -> bool:
        """Return whether the queue of this name, and what is on it, exists for the caller."""
        return self.queues is None or matches(self.queues, queue)
