"""The errors of a queue's tasks of late, newest first, in windows."""

import time
from dataclasses import dataclass
from datetime import datetime

from app.domain.signatures import Failure
from app.store.db import Reader
from app.store.numbers import named
from app.store.statements import sql
from app.store.task_lists import LAST

WINDOW = 5_000
LOOK_SECONDS = 1.0
_DEAD = sql(
    "find_errors",
    table="task_history",
    at="ended_at",
    which=named("t.state = :state_dead and t.kept_until > clock_timestamp()"),
)
_UNFINISHED = sql("find_errors", table="tasks", at="last_started_at", which="t.last_error is not null")


@dataclass(frozen=True, slots=True)
class Found:
    failures: list[Failure]
    complete: bool
    """Whether all failures since then were looked at; otherwise the newest."""


async def since(db: Reader, queue_id: int, start: datetime, now: datetime) -> Found:
    """Return the errors of tasks that have died since `start`, and of unfinished ones that were last started since then."""
    until, failures, complete = time.monotonic() + LOOK_SECONDS, list[Failure](), True
    for statement, dead in ((_DEAD, True), (_UNFINISHED, False)):
        position = (now, LAST)
        while True:
            rows = await db.fetch(statement, queue_id, start, *position, WINDOW)
            failures += [
                Failure(row["error"] or "", row["count"], row["first_at"], row["latest_at"], str(row["task_id"]), dead)
                for row in rows
            ]
            if not rows or rows[0]["seen"] < WINDOW:
                break
            if time.monotonic() > until:
                complete = False
                break
            position = (rows[0]["last_at"], str(rows[0]["last_id"]))
    return Found(failures, complete)
