"""Responses with a tenant's limits over all queues."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType


class LimitsOut(Struct):
    max_concurrency: int | None
    granted_max_concurrency: Annotated[
        int | UnsetType,
        Meta(description="The operator's limit for this tenant, if any. The lower one applies."),
    ] = UNSET


class GrantOut(Struct):
    tenant: str
    max_concurrency: int | None
