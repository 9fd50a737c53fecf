"""The client: every operation of the API, in groups."""

from types import TracebackType
from typing import TypeVar

import httpx2

from sluice_client.api.blocking.actions import Actions
from sluice_client.api.blocking.audit import Audit
from sluice_client.api.blocking.batches import Batches
from sluice_client.api.blocking.definitions import Definitions
from sluice_client.api.blocking.handlers import Handlers
from sluice_client.api.blocking.keys import Keys
from sluice_client.api.blocking.leases import Leases
from sluice_client.api.blocking.limits import Limits
from sluice_client.api.blocking.queues import Queues
from sluice_client.api.blocking.schedules import Schedules
from sluice_client.api.blocking.service import Service
from sluice_client.api.blocking.sources import Sources
from sluice_client.api.blocking.tasks import Tasks
from sluice_client.api.blocking.tenants import Tenants
from sluice_client.sync_transport import SyncTransport

SyncApiT = TypeVar("SyncApiT", bound="SyncApi")


class SyncApi(Service):
    """The HTTP API of Sluice.

    `url` and `key` are read from SLUICE_URL and SLUICE_KEY if they are not given; the URL defaults to
    http://127.0.0.1:8080. `timeout` is in seconds, for each call and all its repeats together. `http` replaces the network.
    Raises ValueError for a URL or a key that cannot be used.

    One object serves a whole program. Threads may share it.
    Close it with `close`, or use it as a context manager; it opens new connections if it is used again.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        http: httpx2.BaseTransport | None = None,
    ) -> None:
        self.transport = SyncTransport(url, key, timeout=timeout, http=http)
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

    def __enter__(self: SyncApiT) -> SyncApiT:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of this process."""
        self.transport.close()
