"""The handler of the queues of `make seed`. It mostly succeeds, and each failure has its own reason."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOLD_SECONDS = 43_200
Answer = tuple[int, dict[str, str], dict[str, Any]]


def answer(headers: Mapping[str, str], payload: Any) -> Answer:
    """The response to a delivery, by its queue and payload."""
    queue, attempt, n = headers["sluice-queue"], int(headers["sluice-attempt"]), payload["n"]
    if queue == "mail" and n % 11 == 0 and attempt == 1:
        return 503, {}, {"error": "the mail relay is busy"}
    if queue == "mail" and n % 29 == 0:
        return 422, {}, {"error": "there is no such mailbox"}
    if queue == "invoices" and n % 13 == 0:
        return 400, {"sluice-retry": "no"}, {"error": "the invoice has no lines"}
    if queue == "invoices" and n % 10 == 0:
        return 500, {}, {"error": "the ledger is locked"}
    if queue == "exports":
        return 202, {"sluice-hold": str(HOLD_SECONDS)}, {"export": n}
    if queue == "sync" and headers.get("sluice-scheduled-for", "")[11:13] in ("03", "04", "17"):
        return 502, {}, {"error": "the CRM is down for maintenance"}
    if queue == "reports":
        return _report(headers)
    return 200, {}, {"ok": n}


def _report(headers: Mapping[str, str]) -> Answer:
    """One message per reader of the report, enqueued by the response."""
    day = headers.get("sluice-scheduled-for", "today")[:10]
    tasks = [
        {"queue": "mail", "idempotency_key": f"{day}-{reader}", "type": "report", "payload": {"n": 1, "to": reader}}
        for reader in ("finance@example.com", "sales@example.com", "support@example.com")
    ]
    return 200, {"content-type": "application/vnd.sluice.tasks+json"}, {"result": {"day": day}, "tasks": tasks}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, headers, body = answer(dict(self.headers.items()), payload)
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """The attempts are on record."""


@contextmanager
def serving() -> Iterator[str]:
    """The URL of the handler, on loopback, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
