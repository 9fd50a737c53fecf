"""How many definitions a tenant may have: what lists, counts and scrapes cost is bounded by them."""

from app.domain.errors import Refusal, invalid_field


def too_many(kind: str, most: int, where: str = "") -> Refusal:
    """For `kind` in the plural. One more is refused; those that are there can be replaced, also beyond a cap that was lowered."""
    return invalid_field(
        where,
        f"the tenant already has {most:,} {kind}, the most allowed; delete some, or have the operator raise SLUICE_MAX_DEFINITIONS",
    )
