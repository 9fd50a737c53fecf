"""Bucket cleanup: one task lists the prefixes of a bucket, and one task per prefix deletes objects that are too old.

    S3_ENDPOINT=http://127.0.0.1:8333 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… WEBHOOK_SECRET=whsec_… python3 cleanup.py

A schedule starts it; see definitions.yaml. What is too old is decided once, from the run's nominal time, and written into
every task. So a later attempt deletes what the first one would have deleted, and nothing else. More settings:
AWS_REGION (us-east-1), HOST (127.0.0.1), PORT (9000), PAGE (1000 prefixes per task), BATCH (100 objects per task).
"""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from s3 import Account, Bucket, S3Error

FOLLOW_UPS = "application/vnd.sluice.tasks+json"
TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1_048_576
SILENCE_SECONDS = 30
PAGE, BATCH = int(os.environ.get("PAGE", "1000")), int(os.environ.get("BATCH", "100"))
PAST_ALL = "\U0010ffff"
"""Appended to a prefix, it sorts after every key with that prefix."""


def list_prefixes(bucket: Bucket, headers, payload: dict) -> dict:
    """One page of prefixes as tasks. Each has its own key, so a page that is delivered twice enqueues nothing twice."""
    now = datetime.fromisoformat(payload.get("now") or headers["sluice-scheduled-for"])
    listing = bucket.list("", payload.get("after", ""), PAGE, delimiter="/")
    tasks = []
    for prefix in listing.prefixes:
        age = payload.get("ages", {}).get(prefix, payload["max_age_seconds"])
        if age is not None:  # null: leave it alone
            older_than = (now - timedelta(seconds=age)).isoformat()
            tasks.append(
                task("bucket-prefixes", {"bucket": payload["bucket"], "prefix": prefix, "older_than": older_than})
            )
    if listing.more:
        last = max([prefix + PAST_ALL for prefix in listing.prefixes] + [found.key for found in listing.objects])
        tasks.append(task("bucket-cleanup", {**payload, "now": now.isoformat(), "after": last}))
    return {"result": {"prefixes": len(listing.prefixes)}, "tasks": tasks}


def clean_prefix(bucket: Bucket, headers, payload: dict) -> dict:
    """Delete a batch of objects that are too old, and name a task for the next. A later attempt finds what is left."""
    older_than = datetime.fromisoformat(payload["older_than"])
    listing = bucket.list(payload["prefix"], payload.get("after", ""), BATCH)
    old = [found for found in listing.objects if found.modified < older_than]
    deleted = 0
    for found in old:
        now = bucket.head(found.key)
        if now is not None and now.etag == found.etag and now.modified < older_than:
            # Only if it is still the same object: one that has been overwritten stays.
            deleted += bucket.delete(found.key, now.etag)
    tasks = []
    if listing.more:
        # In a payload rather than in `next`: a key can be longer than a cursor.
        tasks.append(task("bucket-prefixes", {**payload, "after": listing.objects[-1].key}))
    return {"result": {"deleted": deleted, "listed": len(listing.objects)}, "tasks": tasks}


WORK = {"bucket-cleanup": list_prefixes, "bucket-prefixes": clean_prefix}


def task(queue: str, payload: dict) -> dict:
    key = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
    return {"queue": queue, "idempotency_key": key, "payload": payload}


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
            self.answer(413, {"error": "at most 1 MiB, with its content-length"}, {"connection": "close"})
            return
        body = self.rfile.read(int(size))
        if not signed(self.server.secrets, self.headers, body):
            self.answer(401, {"error": "the signature does not match"})
            return
        work = WORK.get(self.headers.get("sluice-queue", ""))
        if work is None:
            self.answer(422, {"error": "this queue's tasks are not for this handler"}, {"sluice-retry": "no"})
            return
        payload = json.loads(body)
        try:
            with closing(Bucket(self.server.account, payload["bucket"])) as bucket:
                answer = work(bucket, self.headers, payload)
        except S3Error as error:
            self.answer(503, {"error": str(error)})  # Sluice tries again, and the next attempt continues from here
            return
        self.answer(200, answer, {"content-type": FOLLOW_UPS})

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

    def __init__(self, host: str, port: int, secrets: str, account: Account) -> None:
        super().__init__((host, port), Handler)
        self.secrets, self.account = secrets, account


def main() -> None:
    given = ("WEBHOOK_SECRET", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if missing := [name for name in given if not os.environ.get(name)]:
        sys.exit(f"Give {', '.join(missing)}.")
    secrets, endpoint, key_id, secret = (os.environ[name] for name in given)
    # Wait for the signal instead of handling it: a signal handler's exception can be raised anywhere.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    account = Account(endpoint, os.environ.get("AWS_REGION", "us-east-1"), key_id, secret)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
    server = Server(host, port, secrets, account)
    print(f"listening on http://{host}:{server.server_port}/", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait(stop)
    os._exit(0)  # as in a crash: unfinished tasks are delivered again


if __name__ == "__main__":
    main()
