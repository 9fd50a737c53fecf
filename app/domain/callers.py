"""Who is calling: a tenant, with the scope of the key that was given."""

from dataclasses import dataclass
from typing import Final

from app.domain.errors import Refusal

SCOPES = ("use", "manage", "operate")
"""Each includes those before it."""
STRANGERS: Final = None
"""In the place of a tenant, for what is asked before it is known whose a key or a token is."""


@dataclass(frozen=True, slots=True)
class Caller:
    tenant_id: int
    tenant: str
    scope: str

    def require(self, scope: str) -> None:
        """Raises Refusal (forbidden) unless the caller's scope reaches `scope`."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise Refusal("forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}")
