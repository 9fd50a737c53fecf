"""The guides' workers, holds and requests as they stand there, against a real replica."""

import asyncio
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDES = ROOT / "docs" / "guides"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl")


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


@asynccontextmanager
async def python(script: str, folder: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    path = folder / "worker.py"
    path.write_text(script)
    environment = {**os.environ, "no_proxy": "*", "PYTHONUNBUFFERED": "1", **variables}
    process = await asyncio.create_subprocess_exec(
        sys.executable, path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@needs_curl
async def test_the_pull_worker_of_twenty_lines(api: Api, tmp_path: Path) -> None:
    page = GUIDES / "pull-workers.md"
    worker, use = blocks(page, "python")
    assert len([line for line in worker.splitlines() if line]) <= 20
    (define,) = blocks(page, "sh")
    await in_shell(tmp_path, define, S=api.url)
    async with python(f"{worker}\n{use}", tmp_path, SLUICE_URL=api.url) as process:
        task = await api.enqueue("thumbs", {"name": "ada"}, retry=AT_ONCE)
        assert (await api.until(task["id"], "succeeded"))["result"] == {"letters": 3}
        broken = await api.enqueue("thumbs", {}, retry={"max_attempts": 1})
        assert (await api.until(broken["id"], "dead"))["last_error"] == "KeyError('name')"
        assert process.returncode is None


async def test_the_pull_worker_goes_on_after_a_lost_lease(api: Api, tmp_path: Path) -> None:
    worker, _ = blocks(GUIDES / "pull-workers.md", "python")
    (await api.put("/queues/thumbs", json={})).raise_for_status()
    use = "import sys\ndef do(payload):\n    print('begun')\n    return sys.stdin.readline()\nwork('thumbs', do)"
    path = tmp_path / "worker.py"
    path.write_text(f"{worker}\n{use}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, path),
        env={**os.environ, "no_proxy": "*", "PYTHONUNBUFFERED": "1", "SLUICE_URL": api.url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        cancelled = await api.enqueue("thumbs")
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"begun\n"
        good(await api.cancel(cancelled["id"]))
        process.stdin.write(b"late\n")
        assert b"task_cancelled" in await asyncio.wait_for(process.stdout.readline(), 20)
        second = await api.enqueue("thumbs")
        process.stdin.write(b"in time\n")
        assert (await api.until(second["id"], "succeeded"))["result"] == "in time\n"
    finally:
        process.kill()
        process.stdin.close()
        await process.wait()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the block of the guide to long tasks defines."""
    monkeypatch.setenv("no_proxy", "*")
    names: dict[str, Any] = {}
    exec(blocks(GUIDES / "long-tasks.md", "python")[0], names)
    return names


def accepted(named: dict[str, Any]) -> Callable[[Received], Reply]:
    def answer(request: Received) -> Reply:
        status, headers = named["accept"](request.headers, request.json)
        return Reply(status, headers)

    return answer


async def finished() -> None:
    """No work goes on in a thread of the guide's."""
    for thread in threading.enumerate():
        if thread.name.endswith("(work)"):
            await asyncio.to_thread(thread.join, 20)


async def test_a_handler_that_holds_completes_and_fails(api: Api, handler: Handler, named: dict[str, Any]) -> None:
    handler.script(accepted(named))
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue, {"numbers": [3, 4, 5]})
    done = await api.until(task["id"], "succeeded")
    assert (done["result"], done["progress"], done["attempt"]) == (12, {"done": 3, "of": 3}, 1)
    stuck = await api.enqueue(queue, {"numbers": [3, "four"]})
    dead = await api.until(stuck["id"], "dead", reason="stopped_by_worker")
    assert dead["last_error"].startswith("TypeError") and dead["progress"] == {"done": 1, "of": 2}
    await finished()


async def test_a_handler_that_holds_hears_of_a_cancel(
    api: Api, handler: Handler, named: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    handler.script(Reply(202, {"sluice-hold": "60"}))
    task = await api.enqueue(await api.queue_to(handler.url), {"numbers": [1, 2]})
    (call,) = await handler.received()
    await held(api, task)
    good(await api.cancel(task["id"]))
    await asyncio.to_thread(named["work"], call.headers, call.json)
    assert "task_cancelled" in capsys.readouterr().out


@needs_curl
async def test_a_job_in_a_shell_renews_and_completes(api: Api, handler: Handler, tmp_path: Path) -> None:
    handler.script(Reply(202, {"sluice-hold": "60"}))
    task = await api.enqueue(await api.queue_to(handler.url))
    (call,) = await handler.received()
    await held(api, task)
    (lines,) = blocks(GUIDES / "long-tasks.md", "sh")
    headers = call.headers
    await in_shell(tmp_path, lines, TOKEN=headers["sluice-lease-token"], TASK_URL=headers["sluice-task-url"])
    done = await api.task(task["id"])
    assert (done["state"], done["result"], done["progress"]) == ("succeeded", {"rows": 17}, 0.5)


@needs_curl
async def test_a_listing_fans_out_page_by_page(api: Api, handler: Handler, tmp_path: Path) -> None:
    page = GUIDES / "fan-out.md"
    names: dict[str, Any] = {}
    exec(blocks(page, "python")[0], names)
    names["PAGE"] = 10
    db = sqlite3.connect(":memory:")
    db.execute("create table customers (id integer primary key)")
    db.executemany("insert into customers values (?)", [(id,) for id in range(1, 26)])

    def billing(request: Received) -> Reply:
        if request.headers["sluice-queue"] != "months":
            return Reply()
        status, headers, body = names["list_customers"](db, request.headers, request.json)
        return Reply(status, headers, body.encode())

    handler.script(billing)
    define, _ = blocks(page, "sh")
    await in_shell(tmp_path, define.replace("http://127.0.0.1:9000/", handler.url), S=api.url)

    async def closed() -> bool:
        return any(request.headers["sluice-queue"] == "closing" for request in handler.requests)

    await poll(closed)
    sent = [request for request in handler.requests if request.headers["sluice-queue"] == "statements"]
    assert sorted(request.json["customer"] for request in sent) == list(range(1, 26))
    assert {request.json["month"] for request in sent} == {"2026-11"}
    listed = [request for request in handler.requests if request.headers["sluice-queue"] == "months"]
    assert [request.headers.get("sluice-cursor") for request in listed] == [None, "10", "20"]
    assert handler.requests[-1].headers["sluice-queue"] == "closing"
    root = handler.requests[-1].headers["sluice-batch"]
    assert root == listed[0].task
    assert len(await api.pages("/tasks", batch=root)) == 28
    await handler.idle()
    db.close()


@needs_curl
async def test_a_handler_that_held_fans_out_with_its_completion(api: Api, handler: Handler, tmp_path: Path) -> None:
    handler.script(Reply(202, {"sluice-hold": "60"}))
    (await api.put("/queues/statements", json={})).raise_for_status()
    task = await api.enqueue(await api.queue_to(handler.url))
    (call,) = await handler.received()
    await held(api, task)
    _, lines = blocks(GUIDES / "fan-out.md", "sh")
    headers = call.headers
    await in_shell(tmp_path, lines, TOKEN=headers["sluice-lease-token"], TASK_URL=headers["sluice-task-url"])
    done = await api.task(task["id"])
    assert (done["state"], done["result"]) == ("succeeded", {"customers": 1})
    (statement,) = await api.pages("/tasks", queue="statements", include="payload")
    assert (statement["payload"], statement["parent"]) == ({"customer": 1}, task["id"])


async def held(api: Api, task: dict[str, Any]) -> None:
    async def is_held() -> bool:
        attempts = await api.attempts(task["id"])
        return bool(attempts) and attempts[0]["outcome"] == "held"

    await poll(is_held)


@needs_curl
async def test_dead_letters_are_found_and_tried_again(api: Api, handler: Handler, tmp_path: Path) -> None:
    define, look = blocks(GUIDES / "retries-and-dead-letters.md", "sh")
    await in_shell(tmp_path, define.replace("http://127.0.0.1:9000/", handler.url), S=api.url)
    queue = good(await api.get("/queues/mail"))
    assert queue["retry"]["backoff"] == {
        "kind": "exponential",
        "factor": 2,
        "jitter": "equal",
        "min_seconds": 5,
        "max_seconds": 600,
    }
    handler.answer(Reply(422, body=b"no such address"))
    task = await api.enqueue("mail", {"to": "ada"})
    await api.until(task["id"], "dead", reason="fatal_status")
    said = await in_shell(tmp_path, look, S=api.url, ID=task["id"])
    assert '"payload":{"to":"ada"}' in said.replace(": ", ":") and "no such address" in said
    assert (await api.until(task["id"], "succeeded"))["attempt"] == 1
    assert [attempt["number"] for attempt in await api.attempts(task["id"])] == [2, 1]


@needs_curl
async def test_the_same_request_gives_the_same_task(api: Api, tmp_path: Path) -> None:
    (lines,) = blocks(GUIDES / "idempotency.md", "sh")
    (await api.put("/queues/bookings", json={})).raise_for_status()
    await in_shell(tmp_path, lines, S=api.url)
    assert len(await api.pages("/tasks", queue="bookings")) == 1


@needs_curl
async def test_a_batch_is_filled_sealed_watched_retried_and_cancelled(
    api: Api, handler: Handler, tmp_path: Path
) -> None:
    define, fill, look, change = blocks(GUIDES / "batches.md", "sh")
    handler.script(lambda call: Reply(500, {"sluice-retry": "no"}) if call.json.get("to") == "eve" else Reply())
    lines = f"cd {tmp_path}\n{define}\n{fill}".replace("http://127.0.0.1:9000/", handler.url)
    assert (await in_shell(tmp_path, lines, S=api.url)).count('"status":201') == 3
    [batch] = (await api.pages("/batches"))[:1]
    [closing] = [call for call in await handler.received(4) if call.json == {"mailing": 7}]
    assert closing.headers["sluice-batch"] == batch["id"]

    async def counts() -> tuple[int, int]:
        found = good(await api.get(f"/batches/{batch['id']}"))["counts"]
        return found["succeeded"], found["dead"]

    async def all_sent() -> bool:
        return await counts() == (3, 0)

    assert await counts() == (2, 1)
    said = await in_shell(tmp_path, look, S=api.url, BATCH=f"{api.url}/batches/{batch['id']}")
    assert said.count('"percent":100.0') == 2 and '"idempotency_key":"7-eve"' in said
    handler.script(lambda _: Reply())
    for line in change.splitlines():
        await in_shell(tmp_path, line, S=api.url, BATCH=f"{api.url}/batches/{batch['id']}")
        await poll(all_sent)
    assert [call.json for call in handler.requests].count({"mailing": 7}) == 1
