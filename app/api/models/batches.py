"""Batches with what a request has done to them."""

from typing import Annotated

from msgspec import Meta

from app.api.models.bulk import Results
from app.domain.batches import BatchView


class FilledBatch(BatchView, kw_only=True):
    results: Results


class RetriedBatch(BatchView, kw_only=True):
    matched: Annotated[int, Meta(description="Dead tasks of the batch.")]
    moved: Annotated[int, Meta(description="Tasks that are ready now.")]
    remaining: Annotated[int, Meta(description="Tasks that are still dead.")]
