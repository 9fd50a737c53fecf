"""What statements take many of is one array of a composite type, whose fields a tuple of ours has in the same order."""

from collections.abc import Callable
from typing import NamedTuple

import asyncpg
import pytest

from app.store.enqueues import Entry
from app.store.tasks import AttemptEnd, LaneWant

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("name", "kind"), [("entry_v1", Entry), ("lane_v1", LaneWant), ("outcome_v1", AttemptEnd)])
async def test_a_tuple_has_the_fields_of_its_type_in_the_same_order(
    database_url: str, name: str, kind: Callable[..., NamedTuple]
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        fields = await connection.fetch(
            "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum",
            f"sluice.{name}",
        )
    finally:
        await connection.close()
    assert tuple(row[0] for row in fields) == kind._fields  # type: ignore[attr-defined]
