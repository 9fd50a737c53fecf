"""The HTTP API of Sluice, all of it: `Api` for event loops, and `SyncApi`, which blocks."""

from sluice_client.api.blocking.client import SyncApi
from sluice_client.api.client import Api
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET
from sluice_client.api.replies import Event, Reply, reply

__all__ = ["UNSET", "Api", "Event", "Pages", "Reply", "SyncApi", "reply"]
