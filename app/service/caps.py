"""Caps on a tenant's definitions, which bound the cost of lists, counts and scrapes."""

from app.domain.errors import Refusal, invalid_field


def too_many(kind: str, most: int, where: str = "") -> Refusal:
    """Return the refusal of one more `kind` (in the plural). Existing ones can be replaced, even beyond a lowered cap."""
    return invalid_field(
        where,
        f"the tenant already has {most:,} {kind}, the most allowed; delete some, or have the operator raise SLUICE_MAX_DEFINITIONS",
    )
