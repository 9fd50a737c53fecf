"""The fixture `sluice_server`: how the service that it starts ends."""

import socket
import time

import pytest

from sluice_client import SyncSluice
from sluice_client.testing.server import sluice_up


@pytest.mark.ci
def test_a_handler_that_does_not_answer_does_not_keep_it_from_ending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as handler:
        with sluice_up() as server, SyncSluice(server.url) as sluice:
            sluice.handlers.put("silent", url=f"http://127.0.0.1:{handler.getsockname()[1]}/")
            sluice.queues.put("silent", handler="silent")
            sluice.tasks.enqueue("silent", payload=1)
            _held, _ = handler.accept()
            began = time.monotonic()
        assert time.monotonic() - began < 15  # else it would wait for this handler, until it is killed after 20 s
