"""A tenant's limits over all queues: its own and the operator's."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_CONCURRENCY = 100_000
# 0 is not a valid limit: to stop a queue, pause it; to stop a handler, disable it.
MaxConcurrency = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_CONCURRENCY,
        extra={"rule": f"expected 1 to {MAX_CONCURRENCY}, or null for no limit (to stop a queue, pause it)"},
    ),
]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant's own limits."""

    max_concurrency: Annotated[MaxConcurrency | None, Meta(description="null: no limit over all queues.")] = None


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's limits for a tenant."""

    max_concurrency: Annotated[
        MaxConcurrency | None, Meta(description="null: only the tenant's own limit applies.")
    ] = None
