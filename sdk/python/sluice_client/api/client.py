"""The client: every operation of the API, in groups."""

from types import TracebackType
from typing import TypeVar

import httpx2

from sluice_client.api.actions import Actions
from sluice_client.api.audit import Audit
from sluice_client.api.batches import Batches
from sluice_client.api.definitions import Definitions
from sluice_client.api.handlers import Handlers
from sluice_client.api.keys import Keys
from sluice_client.api.leases import Leases
from sluice_client.api.limits import Limits
from sluice_client.api.queues import Queues
from sluice_client.api.schedules import Schedules
from sluice_client.api.service import Service
from sluice_client.api.sources import Sources
from sluice_client.api.tasks import Tasks
from sluice_client.api.tenants import Tenants
from sluice_client.transport import Transport

ApiT = TypeVar("ApiT", bound="Api")


class Api(Service):
    """The HTTP API of Sluice.

    `url` and `key` are read from SLUICE_URL and SLUICE_KEY if they are not given; the URL defaults to
    http://127.0.0.1:8080. `timeout` is in seconds, for each call and all its repeats together. `http` replaces the network.
    Raises ValueError for a URL or a key that cannot be used.

    One object serves a whole program. Event loops and threads may share it: each event loop gets connections of its own.
    Close it with `aclose`, or use it as a context manager; it opens new connections if it is used again.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.transport = Transport(url, key, timeout=timeout, http=http)
        super().__init__(self.transport)
        self.actions = Actions(self.transport)
        self.audit = Audit(self.transport)
        self.batches = Batches(self.transport)
        self.definitions = Definitions(self.transport)
        self.handlers = Handlers(self.transport)
        self.keys = Keys(self.transport)
        self.leases = Leases(self.transport)
        self.limits = Limits(self.transport)
        self.queues = Queues(self.transport)
        self.schedules = Schedules(self.transport)
        self.sources = Sources(self.transport)
        self.tasks = Tasks(self.transport)
        self.tenants = Tenants(self.transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transport.url!r})"

    async def __aenter__(self: ApiT) -> ApiT:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self.transport.aclose()
