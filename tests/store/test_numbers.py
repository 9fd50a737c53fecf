"""States and locks have names: SQL files write no number for them, and every function is planned as its table says."""

import re

import asyncpg
import pytest

from app.store import functions
from app.store.numbers import Lock, TaskState, named
from tests.sluices import ROOT

SQL = [*sorted((ROOT / "app/store/sql").rglob("*.sql")), *sorted((ROOT / "alembic/versions").glob("*.sql"))]
BARE = (
    re.compile(r"515\d{4}"),
    re.compile(r"\bpg_(?:try_)?advisory_\w+\(\s*\d"),
    re.compile(r"\b(?:\w+[._])?state\s*(?:=|<>|<|>|<=|>=)\s*\d"),
    re.compile(r"\bstate\s+(?:not\s+)?in\s*\(\s*\d"),
    re.compile(r"\bstate\s+between\s+\d"),
    re.compile(r"\bcase\s+(?:\w+[._])?state\s+when\s+\d"),
    re.compile(r"(?<![$\d])\d+::smallint"),
)


def code(sql: str) -> str:
    return re.sub(r"--.*", "", sql)


def test_no_file_of_sql_writes_a_number_where_a_name_belongs() -> None:
    assert len(SQL) > 25
    found = {f"{path.name}: {hit[0]}" for path in SQL for bare in BARE for hit in bare.finditer(code(path.read_text()))}
    assert not found


def test_no_python_of_the_store_writes_the_number_of_a_lock() -> None:
    found = [
        path.name
        for path in (ROOT / "app").rglob("*.py")
        if path.name != "numbers.py" and re.search(r"515\d{4}|advisory_\w+\(\d", path.read_text())
    ]
    assert not found


def test_names_become_numbers_and_nothing_else_is_touched() -> None:
    assert named("state = :state_dead and x::text = ':id' and k = :state_succeeded::smallint") == (
        "state = 4 and x::text = ':id' and k = 3::smallint"
    )
    assert named("(:lock_queue, :id)") == "(5157003, :id)"
    with pytest.raises(KeyError):
        named(":state_asleep")
    for numbers in (TaskState, Lock):
        assert len({int(number) for number in numbers}) == len(numbers)


@pytest.mark.anyio
async def test_every_function_is_planned_under_the_settings_of_the_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "select proname, proconfig from pg_proc where pronamespace = 'sluice'::regnamespace"
        )
    finally:
        await connection.close()
    installed = {row["proname"]: row["proconfig"] for row in rows}
    assert functions.SETTINGS.keys() <= installed.keys()
    for name, config in installed.items():
        settings = functions.SETTINGS.get(name, functions.PLANNED)
        wanted = None if settings is None else ["search_path = pg_catalog, pg_temp", *settings]
        assert (config and sorted(config)) == (wanted and sorted(each.replace(" = ", "=") for each in wanted)), name
    for file in functions.FUNCTIONS.glob("*.sql"):
        assert not re.search(r"^\s*set (?:search_path|enable_|jit)", file.read_text(), re.MULTILINE), file.name
