"""Bucket cleanup with sluice-client: the same tasks as in cleanup.py, without the code that speaks to Sluice.

    S3_ENDPOINT=http://127.0.0.1:8333 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… WEBHOOK_SECRET=whsec_… \\
      python cleanup_with_sdk.py

It takes the same settings and definitions. The functions are sync, so each delivery runs in a thread.
"""

import os
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta

import uvicorn
from s3 import Account, Bucket

from sluice_client import Context, Sluice

PAGE, BATCH = int(os.environ.get("PAGE", "1000")), int(os.environ.get("BATCH", "100"))
PAST_ALL = "\U0010ffff"
"""Appended to a prefix, it sorts after every key with that prefix."""
sluice = Sluice()
account = Account(
    os.environ["S3_ENDPOINT"],
    os.environ.get("AWS_REGION", "us-east-1"),
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
)


@sluice.task(queue="bucket-cleanup")
def list_prefixes(
    bucket: str,
    max_age_seconds: int,
    ages: dict[str, int | None] | None = None,
    now: datetime | None = None,
    after: str = "",
    *,
    ctx: Context,
) -> dict[str, int]:
    """One page of prefixes as tasks, and a task for the next page. A page that is delivered twice enqueues nothing twice."""
    now = now or ctx.scheduled_for or datetime.now(UTC)
    with closing(Bucket(account, bucket)) as objects:
        listing = objects.list("", after, PAGE, delimiter="/")
    for prefix in listing.prefixes:
        age = (ages or {}).get(prefix, max_age_seconds)
        if age is not None:  # null: leave it alone
            ctx.follow_up(clean_prefix.call(bucket, prefix, now - timedelta(seconds=age)))
    if listing.more:
        last = max([prefix + PAST_ALL for prefix in listing.prefixes] + [found.key for found in listing.objects])
        ctx.follow_up(list_prefixes.call(bucket, max_age_seconds, ages, now, last))
    return {"prefixes": len(listing.prefixes)}


@sluice.task(queue="bucket-prefixes")
def clean_prefix(bucket: str, prefix: str, older_than: datetime, after: str = "", *, ctx: Context) -> dict[str, int]:
    """Delete a batch of objects that are too old, and name a task for the next. A later attempt finds what is left."""
    deleted = 0
    with closing(Bucket(account, bucket)) as objects:
        listing = objects.list(prefix, after, BATCH)
        for found in listing.objects:
            if found.modified < older_than:
                now = objects.head(found.key)
                if now is not None and now.etag == found.etag and now.modified < older_than:
                    # Only if it is still the same object: one that has been overwritten stays.
                    deleted += objects.delete(found.key, now.etag)
    if listing.more:
        ctx.follow_up(clean_prefix.call(bucket, prefix, older_than, listing.objects[-1].key))
    return {"deleted": deleted, "listed": len(listing.objects)}


def main() -> None:
    listening = socket.create_server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))))
    host, port = listening.getsockname()
    print(f"listening on http://{host}:{port}/", flush=True)
    handler = sluice.asgi(secrets=os.environ["WEBHOOK_SECRET"].split())
    uvicorn.Server(uvicorn.Config(handler, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
