"""Replicas and the database under them."""

from starlette.responses import Response

from app.service import overview
from app.ui.visits import Visit


async def show_all(visit: Visit) -> Response:
    visit.caller.require("operate")
    seen = await overview.overview(visit.core, visit.caller)
    return visit.page("replicas.html", here="replicas", seen=seen)
