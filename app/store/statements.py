"""The two SQL dialects of the store, one per kind of noun.

Definitions (tenants, keys, handlers, queues, schedules) use SQLAlchemy Core over the tables in tables.py: `Query`.
Everything that moves (tasks, batches, the ledger, counts, replicas, partitions) is SQL in files, one statement per file, called by
name: `sql("list_attempts")` is sql/list_attempts.sql. Whatever needs several statements is a database function from
sql/functions: `call`. All are sent over the same connections.
"""

from collections.abc import Callable
from functools import cache, cached_property
from itertools import dropwhile
from pathlib import Path
from typing import Any

from sqlalchemy import ClauseElement, bindparam
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql.compiler import SQLCompiler

from app.store.db import Reader
from app.store.numbers import named

FILES = Path(__file__).parent / "sql"
_DIALECT = dialect()  # type: ignore[no-untyped-call]


def sql(name: str, **parts: str) -> str:
    """Return the statement in sql/NAME.sql, with numbers for `:names` and `parts` for `{names}`."""
    return f"-- {name}\n" + fill(_read(FILES / f"{name}.sql"), **parts)


def call(function: str, arguments: int) -> str:
    """Return the statement that calls a function from sql/functions."""
    return f"select * from sluice.{function}({', '.join(f'${n}' for n in range(1, arguments + 1))})"  # noqa: S608  # ours


def part(name: str, **parts: str) -> str:
    """Return a fragment shared by several statements, from sql/parts/NAME.sql."""
    return fill(_read(FILES / "parts" / f"{name}.sql"), **parts)


def fill(statement: str, **parts: str) -> str:
    """Fill `parts`, which are Sluice's own SQL, into `statement`. Input from callers is always a parameter, never a part."""
    for name, text in parts.items():
        statement = statement.replace(f"{{{name}}}", text)
    return statement


@cache
def _read(path: Path) -> str:
    """Remove the comment at the top of the file, which the server need not parse."""
    lines = path.read_text().splitlines()
    return named("\n".join(dropwhile(lambda line: line.startswith("--"), lines)))


class Query:
    """A SQLAlchemy Core statement, compiled once, when it is first sent.

    Its `bindparam`s are passed by name. Values go to the driver unchanged: JSON as text, instants as datetimes.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, Callable[[dict[str, Any]], list[Any]]]:
        compiled = self._statement.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)
        names, constants = compiled.positiontup or [], compiled.params
        return str(compiled), lambda values: [values[name] if name in values else constants[name] for name in names]

    async def fetch(self, reader: Reader, **values: Any) -> list[Any]:
        text, arguments = self._compiled
        return await reader.fetch(text, *arguments(values))

    async def fetchrow(self, reader: Reader, **values: Any) -> Any | None:
        """Return the first row, or None."""
        rows = await self.fetch(reader, **values)
        return rows[0] if rows else None

    async def fetchval(self, reader: Reader, **values: Any) -> Any:
        """Return the first column of the first row; None without rows."""
        rows = await self.fetch(reader, **values)
        return rows[0][0] if rows else None


def bound(*columns: str) -> dict[str, Any]:
    """For `values`: each of these columns set to the parameter of its name."""
    return {name: bindparam(name) for name in columns}
