"""The tenant's limit over all its queues, on the wire."""

from pydantic import Field

from app.api.models.handlers import MaxConcurrency
from app.api.models.wire import RequestBody, ResponseBody


class LimitsIn(RequestBody):
    max_concurrency: MaxConcurrency | None = Field(None, description="null: no limit over all queues.")


class LimitsOut(ResponseBody):
    max_concurrency: int | None
