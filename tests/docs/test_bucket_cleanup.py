"""examples/bucket_cleanup against moto's S3 server and a real replica, with its definitions."""

import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app.delivery.webhook.signing import new_secret, sign
from tests.docs.buckets import NAME, S3Server, s3_server
from tests.docs.example_processes import apply, example
from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

FOLDER = ROOT / "examples" / "bucket_cleanup"
SECRET = new_secret()
START, DEFINE, TRIGGER = blocks(FOLDER / "README.md", "sh")
SCRIPT, WITH_SDK = "bucket_cleanup/cleanup.py", "bucket_cleanup/cleanup_with_sdk.py"
BATCH = 10
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
OLD, NEW = NOW - 2 * DAY, NOW
ODD = ["odd/a b+c", "odd/ä/%41", "odd//double", "odd/…\u4e16", "odd/&?=#"]


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
async def handler_url(request: pytest.FixtureRequest, s3: S3Server) -> AsyncIterator[str]:
    settings = {
        "S3_ENDPOINT": s3.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "WEBHOOK_SECRET": SECRET,
        "BATCH": str(BATCH),
        "PAGE": "2",
    }
    async with example(getattr(request, "param", SCRIPT), **settings) as url:
        yield url


def fill(s3: S3Server) -> tuple[set[str], set[str]]:
    """What a run is to delete, and what it is to leave."""
    old = {f"{prefix}/{n:03}" for prefix in ("tmp", "uploads") for n in range(0, 50, 2)} | set(ODD)
    kept = {f"{prefix}/{n:03}" for prefix in ("tmp", "uploads") for n in range(1, 50, 2)}
    too_old_for_others = {"logs/1", "logs/2", "keep/1", "top"}
    for key in old | too_old_for_others:
        s3.put(key, OLD)
    for key in kept:
        s3.put(key, NEW)
    return old, kept | too_old_for_others


@pytest.mark.timeout(120)
@pytest.mark.parametrize("handler_url", [SCRIPT, WITH_SDK], indirect=True)
async def test_a_run_that_fails_in_the_middle_deletes_what_was_old_and_nothing_else(
    s3: S3Server, handler_url: str, replica: Replica, tmp_path: Path
) -> None:
    api = Api(replica.client, replica.url)
    old, kept = fill(s3)
    failing = {"tmp/004", "tmp/006", "tmp/020", "uploads/010"}
    overwritten: set[str] = set()

    def before(method: str, key: str) -> bool:
        if method != "DELETE" or key not in failing - overwritten:
            return True
        # Until the next attempt one of those to be deleted is written anew.
        overwritten.add(key)
        now = datetime.now(UTC)
        s3.put(key, now, b"new")
        if key == "tmp/004":
            # One that is too young comes of age within a second, as S3 tells whole ones: two attempts before the one that succeeds.
            s3.put("tmp/001", now.replace(microsecond=0) + timedelta(seconds=1) - DAY)
        return False

    s3.before = before
    await apply(tmp_path, DEFINE, api, handler_url, SECRET)
    await in_shell(tmp_path, TRIGGER, S=api.url)
    run = await ended_run(api)

    assert run["outcome"] == "ran_ok" and len(overwritten) == len(failing)
    assert s3.keys() == kept | overwritten
    assert sorted(s3.deleted) == sorted(old - overwritten)
    tasks = await api.pages("/tasks", batch=run["batch_id"])
    assert {task["queue"] for task in tasks} == {"bucket-cleanup", "bucket-prefixes"}
    assert {task["state"] for task in tasks} == {"succeeded"}
    assert sum(task["attempt"] - 1 for task in tasks) == len(failing)
    assert all(task["result"]["listed"] <= BATCH for task in tasks if task["queue"] == "bucket-prefixes")


async def ended_run(api: Api) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        [row] = await api.pages("/schedules/bucket-cleanup/history")
        return row if row["completed_at"] else None

    return await poll(there, 60, every_seconds=0.05)


async def deliver(url: str, payload: dict[str, Any], queue: str = "bucket-prefixes") -> httpx2.Response:
    body, timestamp = json.dumps({"bucket": NAME, **payload}).encode(), int(time.time())
    headers = {
        "webhook-id": "task-1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign((SECRET,), "task-1", timestamp, body),
        "sluice-queue": queue,
        "sluice-scheduled-for": "2026-03-01T12:00:00Z",
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.post(url, content=body, headers=headers)


@pytest.mark.parametrize("written_anew_before", ["HEAD", "DELETE"])
async def test_what_is_written_anew_after_the_listing_stays(
    s3: S3Server, handler_url: str, written_anew_before: str
) -> None:
    s3.put("tmp/one", OLD)
    s3.put("tmp/two", OLD)

    def before(method: str, key: str) -> bool:
        if (method, key) == (written_anew_before, "tmp/one"):
            s3.put(key, datetime.now(UTC), b"new")
        return True

    s3.before = before
    answer = await deliver(handler_url, {"prefix": "tmp/", "older_than": (NOW - DAY).isoformat()})
    assert answer.json()["result"] == {"deleted": 1, "listed": 2}
    assert s3.keys() == {"tmp/one"}


async def test_what_is_too_old_counts_from_the_nominal_time(s3: S3Server, handler_url: str) -> None:
    s3.put("logs/1", OLD)
    s3.put("tmp/1", OLD)
    payload = {"max_age_seconds": 3600, "ages": {"logs/": 60}}
    first, second = [(await deliver(handler_url, payload, "bucket-cleanup")).json() for _ in range(2)]
    assert first == second and first["result"] == {"prefixes": 2}
    cutoffs = {task["payload"]["prefix"]: task["payload"]["older_than"] for task in first["tasks"]}
    assert cutoffs == {"logs/": "2026-03-01T11:59:00+00:00", "tmp/": "2026-03-01T11:00:00+00:00"}


async def test_it_tries_again_what_the_bucket_refuses_and_believes_what_is_signed(
    s3: S3Server, handler_url: str
) -> None:
    payload = {"prefix": "tmp/", "older_than": NOW.isoformat()}
    assert (await deliver(handler_url, {**payload, "bucket": "elsewhere"})).status_code == 503
    assert (await deliver(handler_url, payload, "mail")).status_code == 422
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.post(handler_url, json=payload)).status_code == 401


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/scratch", "list-type=2&max-keys=10&prefix=a%20b%2B%2F"),
        ("/scratch/a%20b%2Bc", ""),
        ("/scratch/%C3%A4//%2541", ""),
    ],
)
def test_its_signatures_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch, path: str, query: str) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import s3 as of_the_example

    account = of_the_example.Account("http://127.0.0.1:9", "eu-central-1", "key", "secret")
    url = f"{account.endpoint}{path}" + (f"?{query}" if query else "")
    request = AWSRequest("DELETE", url, headers={"x-amz-content-sha256": of_the_example.EMPTY})
    S3SigV4Auth(Credentials("key", "secret"), "s3", "eu-central-1").add_auth(request)
    signed = {
        "host": "127.0.0.1:9",
        "x-amz-content-sha256": request.headers["X-Amz-Content-SHA256"],
        "x-amz-date": request.context["timestamp"],
    }
    ours = of_the_example.authorization(account, "DELETE", path, query, signed)
    assert ours == request.headers["Authorization"]
    del sys.modules["s3"]
