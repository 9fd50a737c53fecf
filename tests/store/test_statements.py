"""Where SQL stands: what moves in files, one statement each, opened by why it is written so; definitions in SQLAlchemy Core."""

import ast
import re
from pathlib import Path

import asyncpg
import pytest

from app.store.statements import FILES, fill, part, sql
from tests.sluices import ROOT

STORE = ROOT / "app/store"
STATEMENTS = sorted(FILES.glob("*.sql"))
PARTS = sorted((FILES / "parts").glob("*.sql"))
SQL = re.compile(r"\b(?:select\b.+\bfrom\b|insert into|update \w+\.\w+ |delete from|select \w+\.\w+_v\d)", re.S | re.I)
EXEMPT = {
    "statements.py": "calls functions",
    "migrations.py": "asks whether there is a schema at all",
    "examination.py": "asks a database that is not known to be one of ours",
}


def texts(path: Path) -> set[str]:
    """Every text in a module that is no docstring."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def test_each_file_is_named_by_a_verb_and_opened_by_why() -> None:
    assert len(STATEMENTS) > 40
    for path in [*STATEMENTS, *PARTS]:
        assert path.read_text().startswith("-- "), path.name
        assert len(path.read_text().splitlines()) > 1
    assert [path.name for path in STATEMENTS if not re.fullmatch(r"[a-z]+(_[a-z]+)+\.sql", path.name)] == []


def arguments_of(function: str) -> list[tuple[object, ...]]:
    """The constants that are passed to a function of statements.py, wherever the store calls it."""
    return [
        tuple(argument.value for argument in node.args if isinstance(argument, ast.Constant))
        for path in STORE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
    ]


def test_each_file_is_called_by_its_name_and_each_name_is_a_file() -> None:
    assert {name for (name,) in arguments_of("sql")} == {path.stem for path in STATEMENTS}
    assert {name for (name,) in arguments_of("part")} == {path.stem for path in PARTS}


@pytest.mark.anyio
async def test_each_function_is_called_with_as_many_arguments_as_it_takes(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "select proname, pronargs - pronargdefaults as least, pronargs as most from pg_proc"
            " where pronamespace = 'sluice'::regnamespace"
        )
    finally:
        await connection.close()
    taken = {row["proname"]: range(row["least"], row["most"] + 1) for row in rows}
    calls = arguments_of("call")
    assert len(calls) > 20
    assert [(name, given) for name, given in calls if given not in taken.get(name, ())] == []


def test_no_statement_stands_in_python() -> None:
    found = {
        f"{path.name}: {' '.join(text.split())[:60]}"
        for path in STORE.glob("*.py")
        if path.name not in EXEMPT
        for text in texts(path)
        if SQL.search(text)
    }
    assert not found


def test_a_statement_bears_its_name_and_takes_its_parts() -> None:
    assert sql("read_clock") == "-- read_clock\nselect clock_timestamp()"
    assert part("running", row="x").startswith("(x.state = 1 and (x.lease_expires_at")
    assert fill("{a} {b} '{}'", a="1", b="2") == "1 2 '{}'"
