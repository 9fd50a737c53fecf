"""The caller of a request: a tenant, with the scope of its key."""

from dataclasses import dataclass
from typing import Final

from app.domain.errors import Refusal

SCOPES = ("use", "manage", "operate")
"""Each scope includes those before it."""
STRANGERS: Final = None
"""Stands for the tenant in lookups of keys and tokens whose tenant is not known yet."""


@dataclass(frozen=True, slots=True)
class Caller:
    tenant_id: int
    tenant: str
    scope: str

    def require(self, scope: str) -> None:
        """Raise Refusal (forbidden) unless the caller's scope includes `scope`."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise Refusal("forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}")
