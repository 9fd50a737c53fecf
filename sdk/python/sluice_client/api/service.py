"""The state of the service.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import AsyncIterator

from sluice_client.api.events import follow
from sluice_client.api.group import Group
from sluice_client.api.parameters import UNSET
from sluice_client.api.replies import Event
from sluice_client.models import HealthOut, Overview, Series, StatusOut


class Service(Group):
    def events(self, *, task: str | None = UNSET, last_event_id: str | None = UNSET) -> AsyncIterator[Event]:
        """Watch the overview (at most every two seconds, when it changed), alarms at once, and a task as it changes.

        - `task`: A task to watch as well: its UUID.
        - `last_event_id`: The last id received, after a break.

        Refused with `task_not_found` (404).
        """
        return follow(self._transport, task, last_event_id)

    async def live(self) -> HealthOut:
        """Return 200 unless the process should be restarted. Never touches the database."""
        view: HealthOut = await self._ask("GET", "/health/live")
        return view

    async def ready(self) -> HealthOut:
        """Return 200 if the replica can take requests: it has been connected, its schema is compatible, and it is
        not draining.
        """
        view: HealthOut = await self._ask("GET", "/health/ready")
        return view

    async def metrics(self) -> str:
        """Read metrics for Prometheus, over all tenants."""
        return await self._text("/metrics")

    async def overview(self) -> Overview:
        """Read what matters first: verdicts, alarms, every queue, what is due, and with scope operate replicas and
        database.
        """
        view: Overview = await self._ask("GET", "/overview")
        return view

    async def series(self, *, minutes: int | None = UNSET) -> Series:
        """Read what happened in each of the last minutes, over all queues.

        - `minutes`: How many minutes, with the current one. Default: `60`.
        """
        view: Series = await self._ask("GET", "/series", params={"minutes": minutes})
        return view

    async def status(self) -> StatusOut:
        """Read version, replicas, queues and database, over all tenants."""
        view: StatusOut = await self._ask("GET", "/status")
        return view
