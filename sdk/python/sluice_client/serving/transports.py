"""The transport that serves tasks: it waits in an event loop, whichever form the program uses."""

from sluice_client.sync_transport import SyncTransport
from sluice_client.transport import Transport


def awaited(transport: Transport | SyncTransport) -> Transport:
    """Return a transport to the same Sluice, with the same key, for event loops."""
    if isinstance(transport, Transport):
        return transport
    key = transport._headers.get("authorization", "").removeprefix("Bearer ")
    return Transport(transport.url, key or None, timeout=transport.timeout)
