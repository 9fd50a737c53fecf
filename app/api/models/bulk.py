"""The result of each task of a bulk request or a batch."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.ids import Uuid
from app.edge.declared import ref_of
from app.edge.replies import Problem


class StoredOut(Struct):
    status: Annotated[
        Literal[200, 201],
        Meta(description="200: a task with this idempotency key or unique key already existed."),
    ]
    id: Uuid
    unique_held: Annotated[
        bool | UnsetType, Meta(description="`true` if an unfinished task has its unique key; otherwise absent.")
    ] = UNSET


class RefusedOut(Struct):
    status: Annotated[
        int,
        Meta(description="413, 422 or 429; 503 if the database became unavailable after earlier tasks were stored."),
    ]
    problem: Problem


Results = Annotated[
    list[Annotated[Any, Meta(extra_json_schema={"anyOf": [ref_of(StoredOut), ref_of(RefusedOut)]})]],
    Meta(description="The result of each task, in order."),
]
"""StoredOut, or the JSON of RefusedOut."""


class BulkOut(Struct):
    results: Results
