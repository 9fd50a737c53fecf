"""A complete webhook handler in plain Python. It books amounts to accounts, each task once, however often it is delivered.

    WEBHOOK_SECRET=whsec_… python3 handler.py

It does what every handler has to do: verify the signature, do the work once per `webhook-id`, and respond so that Sluice
knows what to do next. Settings: WEBHOOK_SECRET (several, separated by spaces, while a secret is being rotated),
HOST (127.0.0.1), PORT (9000), LEDGER (ledger.db).
"""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1_048_576
MAX_AMOUNT = 10**12
SILENCE_SECONDS = 30


class Ledger:
    """Balances, and the tasks that have been booked: in one database, so that one transaction covers both."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._open() as database:
            database.execute("create table if not exists balances (account text primary key, amount integer not null)")
            database.execute("create table if not exists done (task text primary key, result text not null)")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=5, isolation_level=None)

    def book(self, task: str, account: str, amount: int) -> dict:
        """Book once. A repeated task gets the result of the first time, and nothing more is booked."""
        database = self._open()
        try:
            database.execute("begin immediate")  # a concurrent delivery waits here, then finds the first
            row = database.execute("select result from done where task = ?", (task,)).fetchone()
            if row is not None:
                database.execute("rollback")
                return json.loads(row[0])
            (balance,) = database.execute(
                "insert into balances values (?, ?) on conflict (account) do update set amount = amount + excluded.amount"
                " returning amount",
                (account, amount),
            ).fetchone()
            result = {"account": account, "balance": balance}
            database.execute("insert into done values (?, ?)", (task, json.dumps(result)))
            database.execute("commit")
            return result
        finally:
            database.close()

    def balances(self) -> dict:
        database = self._open()
        try:
            return dict(database.execute("select account, amount from balances order by account").fetchall())
        finally:
            database.close()


def signed(secrets: str, headers, body: bytes) -> bool:
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body with any of the secrets, at most five minutes old."""
    task, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False  # anyone can send anything
    message = f"{task}.{timestamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets.split()]
    expected = [b"v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)) for key in keys]
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(one, other) for one in given for other in expected)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS  # after which a silent connection is closed
    server: "Server"

    def do_POST(self) -> None:
        size = self.headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,7}", size) or int(size) > MAX_BODY_BYTES:
            self.answer(
                413, {"error": "at most 1 MiB, with its content-length"}, {"sluice-retry": "no", "connection": "close"}
            )
            return
        body = self.rfile.read(int(size))
        if not signed(self.server.secrets, self.headers, body):
            self.answer(
                401, {"error": "the signature does not match"}
            )  # Sluice tries again: someone may fix the secret
            return
        try:
            payload = json.loads(body)
            account, amount = payload["account"], payload["amount"]
            if not isinstance(account, str) or not isinstance(amount, int) or abs(amount) > MAX_AMOUNT:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            # No later attempt can succeed: the task is dead at once, for a person to look at.
            self.answer(422, {"error": "expected account and amount"}, {"sluice-retry": "no"})
            return
        try:
            result = self.server.ledger.book(self.headers["webhook-id"], account, amount)
        except sqlite3.OperationalError as error:
            self.answer(503, {"error": str(error)}, {"retry-after": "5"})  # busy: try again in five seconds or more
            return
        self.answer(200, result)

    def do_GET(self) -> None:
        self.answer(200, self.server.ledger.balances())

    def answer(self, status: int, answer: dict, headers: dict | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        headers = getattr(self, "headers", None) or {}  # not set if the first line was not HTTP
        task, attempt = headers.get("webhook-id", "-"), headers.get("sluice-attempt", "-")
        print(ascii(f"{args[1]} task {task} attempt {attempt}")[1:-1], flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, secrets: str, ledger: Ledger) -> None:
        super().__init__((host, port), Handler)
        self.secrets, self.ledger = secrets, ledger


def main() -> None:
    secrets = os.environ.get("WEBHOOK_SECRET", "")
    if not secrets:
        sys.exit("Give WEBHOOK_SECRET: the signing secret that PUT /handlers/{name} has answered.")
    # Wait for the signal instead of handling it: a signal handler's exception can be raised anywhere, even where it is swallowed.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
    server = Server(host, port, secrets, Ledger(os.environ.get("LEDGER", "ledger.db")))
    print(f"listening on http://{host}:{server.server_port}/", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait(stop)
    # As in a crash: a transaction in progress is committed or not, and its task is delivered again. A normal exit could hang on
    # a thread that holds the lock of stdout.
    os._exit(0)


if __name__ == "__main__":
    main()
