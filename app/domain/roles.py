"""Roles of the database that may call sluice.enqueue."""

from datetime import datetime

from msgspec import Struct

MAX_ROLE_BYTES = 63


class RoleGrant(Struct, frozen=True):
    """What a role may enqueue."""

    role: str
    tenant: str
    queues: tuple[str, ...] | None
    """Patterns of queue names, in which * stands for any characters; None: all queues of the tenant."""
    created_at: datetime
    exists: bool
    """Whether the database still has the role."""
