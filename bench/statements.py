"""The statements that a database runs, with what each took: from the server's own log, so nothing is asked of the service."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import asyncpg

_LINE = re.compile(
    r"^\S+ \S+ \S+ \[\d+\] (?P<database>\S+) LOG:  duration: (?P<ms>[\d.]+) ms  (?:execute [^:]*|statement): (?P<text>.*)$"
)

_ENQUEUE = re.compile(r"\bsluice\.enqueue\w*_v\d+\(")
_CLAIM = re.compile(r"\bsluice\.claim\w*_v\d+\(")


class Statement(NamedTuple):
    ms: float
    text: str
    """Its first line: that of Sluice's own names the statement or the function."""


def claims_ms(statements: Iterable[Statement]) -> list[float]:
    """How long each claim took, in ascending order."""
    return sorted(statement.ms for statement in statements if _CLAIM.search(statement.text))


def finding_claims_ms(statements: Iterable[Statement]) -> list[float]:
    """The same of those that find a task, where tasks come one at a time: directly after each enqueue. The claim after a settle
    finds nothing more."""
    return claims_ms(claim for before, claim in pairwise(statements) if _ENQUEUE.search(before.text))


class StatementLog:
    def __init__(self, server: asyncpg.Connection, log_file: Path) -> None:
        self._server = server
        self._log_file = log_file
        self._at = 0

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        """Log every statement of every session meanwhile."""
        await self._set("0")
        self._at = self._log_file.stat().st_size
        try:
            yield
        finally:
            await self._set("-1")

    async def _set(self, milliseconds: str) -> None:
        await self._server.execute(f"alter system set log_min_duration_statement = {milliseconds}")
        await self._server.execute("select pg_reload_conf()")

    def taken(self, database: str) -> list[Statement]:
        """What this database has run since the last call, or since logging began."""
        with self._log_file.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        end = text.rfind(b"\n") + 1
        self._at += end
        return parsed(text[:end].decode(errors="replace").splitlines(), database)


def parsed(lines: Iterable[str], database: str) -> list[Statement]:
    """The statements of this database among the lines of a log; parsing and planning are lines of their own, and left out."""
    found = (_LINE.match(line) for line in lines)
    return [Statement(float(m["ms"]), m["text"]) for m in found if m is not None and m["database"] == database]
