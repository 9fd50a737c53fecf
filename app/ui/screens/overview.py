"""One look: what waits, what runs, what died, and what an operator should do about it."""

from heapq import nsmallest
from typing import Any

from msgspec import UNSET
from starlette.responses import Response

from app.domain.overviews import QueueSeen
from app.service import overview
from app.ui.visits import Visit

SHOWN_QUEUES = 50
FIRST_ALARMS, SHOWN_ALARMS = 4, 50
"""Those shown at once, and those behind a click: charts should not be far below."""
CHART_MINUTES = 60
VERDICTS = (
    ("flow", "Does what is ready start?"),
    ("execution", "Does what starts succeed?"),
    ("liveness", "Are replicas and database there?"),
)


async def show(visit: Visit) -> Response:
    async def find() -> dict[str, Any]:
        seen = await visit.look() or await overview.overview(visit.core, visit.caller)
        series = await overview.past(visit.core, visit.caller, CHART_MINUTES)
        shown = nsmallest(SHOWN_QUEUES, seen.queues, key=_urgency)
        return {
            "seen": seen,
            "points": [] if series is None else series.points,
            "verdicts": [(name, question, getattr(seen.verdicts, name)) for name, question in VERDICTS],
            "queues": shown,
            "sparks": await overview.sparklines(visit.core, visit.caller, [row.queue for row in shown]),
            "first_alarms": FIRST_ALARMS if len(seen.alarms) > FIRST_ALARMS + 1 else FIRST_ALARMS + 1,
            "shown_alarms": SHOWN_ALARMS,
            "operates": seen.replicas is not UNSET,
        }

    return await visit.live_page("overview.html", "overview", find)


def _urgency(row: QueueSeen) -> tuple[bool, int, int, str]:
    """Order by what needs a look: stopped with work, then most waiting, then most dead."""
    stopped = (row.paused or row.handler_enabled is False) and row.tasks.ready > 0
    return not stopped, -row.tasks.ready - row.tasks.running, -row.tasks.dead, row.queue
