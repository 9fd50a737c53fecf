"""The limits over all queues of a tenant, on the wire."""

from pydantic import Field

from app.api.models.handlers import MaxConcurrency
from app.edge.replies import RequestBody, ResponseBody


class LimitsIn(RequestBody):
    max_concurrency: MaxConcurrency | None = Field(None, description="null: no limit over all queues.")


class LimitsOut(ResponseBody):
    max_concurrency: int | None
    granted_max_concurrency: int | None = Field(
        None,
        exclude_if=lambda granted: granted is None,
        description="What an operator grants this tenant at most, if that is limited. The lesser counts.",
    )


class GrantIn(RequestBody):
    max_concurrency: MaxConcurrency | None = Field(None, description="null: as many as the tenant's own limit says.")


class GrantOut(ResponseBody):
    tenant: str
    max_concurrency: int | None
