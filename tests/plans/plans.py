"""The plans of every statement a call leads to, nested ones too, as the server tells them while it runs them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

from app.store.connecting import connect
from app.store.db import Database

NEXT_TO_NOTHING = 200
CALLED = re.compile(r"sluice\.(\w+_v\d+)\b")
"""The functions that a statement calls."""
WATCHED = (
    *("tasks", "task_history", "attempts", "attempt_history"),
    *(
        "idempotency_keys",
        "batches",
        "followup_keys",
        "handler_calls",
        "handler_health",
        "flows",
        "holds",
        "flow_signals",
        "rate_clocks",
        "schedule_runs",
    ),  # deltas are few: they are folded
)

# analyze without timing costs next to nothing and says how many rows were read
TELL = """
load 'auto_explain';
set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on;
set auto_explain.log_timing = off; set auto_explain.log_buffers = off; set auto_explain.log_format = json;
set auto_explain.log_level = notice; set client_min_messages = notice
"""


@dataclass(frozen=True, slots=True)
class Told:
    query: str
    plan: dict[str, Any]

    def nodes(self) -> Iterator[dict[str, Any]]:
        return _under(self.plan)

    def problems(self, most_rows: float) -> list[str]:
        """What it does that grows with the tables. A table of next to nothing may be scanned, as some days of history are."""
        found = []
        for node in self.nodes():
            kind, name, index = node["Node Type"], node.get("Relation Name", ""), node.get("Index Name", "")
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            if kind == "Seq Scan" and name.startswith(WATCHED) and (name == "tasks" or read > NEXT_TO_NOTHING):
                found.append(f"Seq Scan on {name}")
            elif read > most_rows and (name or index).startswith(WATCHED):
                found.append(f"{kind} on {name} by {index} read {read:.0f} rows")
        return found


def _under(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _under(child)


class WatchedDatabase(Database):
    """One connection, whose every statement is told."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection
        self._told: list[Told] = []
        connection.add_log_listener(self._listen)

    @classmethod
    async def on(cls, url: str, **settings: Any) -> "WatchedDatabase":
        connection = await connect(url, **settings)
        await connection.execute(TELL)
        return cls(connection)

    async def close(self) -> None:
        await self._connection.close()

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(sql, *args, timeout=60)
        return rows

    async def unwatched(self, sql: str, *args: Any) -> None:
        """What the test itself does."""
        told, self._told = self._told, []
        await self._connection.execute(sql, *args)
        self._told = told

    def told(self) -> list[Told]:
        """Since the last question."""
        told, self._told = self._told, []
        return told

    def _listen(self, _connection: Any, message: Any) -> None:
        _, _, text = message.message.partition("plan:\n")
        if text:
            told = json.loads(text)
            self._told.append(Told(told["Query Text"], told["Plan"]))
