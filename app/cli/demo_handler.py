"""The demo's handler: a separate process that verifies signatures and does what a task's type says.

`flaky` fails on its first attempt, `broken` on every one, `slow` takes its time on the first; anything else succeeds at
once. It writes each call to stdout as a line of JSON.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from app.delivery.webhook.signing import sign

SLOW_SECONDS = 4.0
SECRET_VARIABLE = "DEMO_SIGNING_SECRET"  # noqa: S105  # the name of a variable, not a secret


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        task, kind, attempt = (self.headers[name] for name in ("webhook-id", "sluice-type", "sluice-attempt"))
        expected = sign((os.environ[SECRET_VARIABLE],), task, int(self.headers["webhook-timestamp"]), body)
        if self.headers["webhook-signature"] != expected:
            self._answer(401, {"error": "the signature does not match"})
            return
        _say({"task": task, "type": kind, "attempt": int(attempt)})
        if kind == "slow" and attempt == "1":
            time.sleep(SLOW_SECONDS)
        if kind == "broken" or (kind == "flaky" and attempt == "1"):
            self._answer(500, {"error": "as the demo asked"})
        else:
            self._answer(200, {"done": kind})

    def _answer(self, status: int, answer: dict[str, str]) -> None:
        body = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the replica that waited for the answer is gone

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: each call has already been written as JSON."""


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    _say({"url": f"http://127.0.0.1:{server.server_port}/"})
    server.serve_forever()


if __name__ == "__main__":
    main()
