"""The guides' workers and holds against a real replica, with proxies, restarts and cancels in between."""

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.faults import Between
from tests.docs.pages import ROOT, blocks, files
from tests.docs.shell import in_shell
from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDES = ROOT / "docs" / "guides"
RUNBOOKS = ROOT / "docs" / "runbooks"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl")


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


def impatient(code: str) -> str:
    """The same code with shorter waits."""
    waits = {
        "pause = 1\n": "pause = 0.02\n",
        "min(2 * pause, 30)": "0.02",
        "time.sleep(2)": "time.sleep(0.02)",
        "timeout=70": "timeout=2",
        "timeout=20": "timeout=2",
        '"wait_seconds": 50': '"wait_seconds": 1',
    }
    for long, short in waits.items():
        code = code.replace(long, short)
    return code


@asynccontextmanager
async def worker(use: str, folder: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that uses the guide's worker."""
    for name, code in files(GUIDES / "pull-workers.md").items():
        (folder / name).write_text(impatient(code))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"from worker import work\n{use}"),
        cwd=folder,
        env={**os.environ, "no_proxy": "*", "PYTHONUNBUFFERED": "1", "SLUICE_URL": url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        print((await process.communicate())[0].decode())


@pytest.mark.timeout(180)
async def test_the_worker_outlives_every_answer_that_is_not_sluices(api: Api, tmp_path: Path) -> None:
    (await api.put("/queues/thumbs", json={})).raise_for_status()
    async with Between(api.url).serving() as between:
        between.lost |= {"complete", "fail"}
        async with worker("work('thumbs', lambda payload: len(payload['name']))", tmp_path, between.url) as process:
            task = await api.enqueue("thumbs", {"name": "ada"})
            done = await poll_until(api, task["id"], "succeeded")
            assert (done["result"], done["attempt"]) == (3, 1)
            broken = await api.enqueue("thumbs", {}, retry={"max_attempts": 1})
            assert (await poll_until(api, broken["id"], "dead"))["last_error"] == "KeyError('name')"
            await poll(
                lambda: between.passed.count("complete") == between.passed.count("fail") == 2
            )  # each was said again
            assert process.returncode is None


async def poll_until(api: Api, task_id: str, state: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        task = await api.task(task_id)
        return task if task["state"] == state else None

    return await poll(there, 60, every_seconds=0.1)


async def test_the_worker_gives_up_on_what_no_waiting_mends(api: Api, tmp_path: Path) -> None:
    async with worker("work('nosuch', len)", tmp_path, api.url) as process:
        assert process.stdout is not None
        assert b"queue_not_found" in await asyncio.wait_for(process.stdout.readline(), 20)
        assert await asyncio.wait_for(process.wait(), 20) == 1


async def test_the_worker_fails_a_task_whose_result_cannot_be_kept(api: Api, tmp_path: Path) -> None:
    (await api.put("/queues/thumbs", json={})).raise_for_status()
    results = "[float('nan'), 'x' * 100_000, {1, 2}, '\\ud800']"
    async with worker(f"work('thumbs', lambda n: {results}[n])", tmp_path, api.url) as process:
        for number in range(4):
            task = await api.enqueue("thumbs", number, retry={"max_attempts": 1})
            assert (await api.until(task["id"], "dead"))["last_error"]
        fine = await api.enqueue("thumbs", 7, retry={"max_attempts": 1})
        assert (await api.until(fine["id"], "dead"))["last_error"].startswith("IndexError")
        assert process.returncode is None


async def test_the_worker_goes_on_after_a_lost_lease(api: Api, tmp_path: Path) -> None:
    (await api.put("/queues/thumbs", json={})).raise_for_status()
    use = "import sys\ndef do(payload):\n    print('begun')\n    return sys.stdin.readline()\nwork('thumbs', do)"
    async with worker(use, tmp_path, api.url) as process:
        assert process.stdin is not None and process.stdout is not None
        cancelled = await api.enqueue("thumbs")
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"begun\n"
        good(await api.cancel(cancelled["id"]))
        process.stdin.write(b"late\n")
        assert b"task_cancelled" in await asyncio.wait_for(process.stdout.readline(), 20)
        second = await api.enqueue("thumbs")
        process.stdin.write(b"in time\n")
        assert (await api.until(second["id"], "succeeded"))["result"] == "in time\n"


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the program of the guide to long tasks defines."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "handler.py").write_text("serve = None\n")
    names: dict[str, Any] = {"__name__": "adder"}
    exec(impatient(files(GUIDES / "long-tasks.md")["adder.py"]), names)
    sys.modules.pop("handler")
    return names


def accepted(holder: dict[str, Any]) -> Callable[[Received], Reply]:
    def answer(request: Received) -> Reply:
        status, headers, body = holder["accept"](request.headers, request.json)
        return Reply(status, headers, json.dumps(body).encode())

    return answer


async def finished() -> None:
    """No work goes on in a thread of the guide's."""
    for thread in threading.enumerate():
        if thread.name.endswith("(work)"):
            await asyncio.to_thread(thread.join, 20)


@pytest.mark.timeout(180)
async def test_a_handler_that_holds_completes_and_fails_through_every_answer_that_is_not_sluices(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler, holder: dict[str, Any]
) -> None:
    between = Between("")
    async with between.serving():
        replica = await start_replica(public_url=between.url)
        between._target = replica.url
        api = Api(replica.client, replica.url)
        handler.script(accepted(holder))
        queue = await api.queue_to(handler.url)
        task = await api.enqueue(queue, {"numbers": [3, 4, 5]})
        done = await poll_until(api, task["id"], "succeeded")
        assert (done["result"], done["progress"], done["attempt"]) == (12, {"done": 3, "of": 3}, 1)
        stuck = await api.enqueue(queue, {"numbers": [3, "four"]})
        dead = await poll_until(api, stuck["id"], "dead")
        assert dead["reason"] == "stopped_by_worker" and dead["progress"] == {"done": 1, "of": 2}
        assert dead["last_error"].startswith("TypeError")
        await finished()


async def test_a_handler_that_holds_hears_of_a_cancel(
    api: Api, handler: Handler, holder: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    handler.script(Reply(202, {"sluice-hold": "60"}))
    task = await api.enqueue(await api.queue_to(handler.url), {"numbers": [1, 2]})
    (call,) = await handler.received()
    await held(api, task)
    good(await api.cancel(task["id"]))
    await asyncio.to_thread(holder["work"], call.headers, call.json)
    assert "task_cancelled" in capsys.readouterr().out


@needs_curl
async def test_what_nobody_fires_is_an_alarm_until_somebody_does(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler, tmp_path: Path
) -> None:
    only_api = await start_replica(role="api", schedule_grace_seconds=1)
    api = Api(only_api.client, only_api.url)
    queue = await api.queue_to(handler.url)
    body = {"queue": queue, "payload": None, "cron": "every 1 second", "catch_up": {"mode": "all"}}
    good(await api.put("/schedules/hourly", json=body), 201)
    look = blocks(RUNBOOKS / "schedule-is-late.md", "sh")[1]

    async def alarm() -> bool:
        status = good(await api.get("/status"))
        return any(alarm["code"] == "schedule_overdue" for alarm in status["alarms"])

    await poll(alarm, 20, every_seconds=0.1)

    async def metric() -> bool:
        return 'schedule="hourly"' in await in_shell(tmp_path, look, S=api.url)

    await poll(metric, 20, every_seconds=0.1)
    await start_replica(schedule_grace_seconds=1)
    await handler.received(3, 20)
    (await api.delete("/schedules/hourly")).raise_for_status()


@needs_curl
async def test_the_runbook_writes_down_what_is_not_paused_from_all_pages(api: Api, tmp_path: Path) -> None:
    names = [await api.queue() for _ in range(5)]
    good(await api.post(f"/queues/{names[2]}/pause"))
    write_down, *_ = blocks(RUNBOOKS / "pause-everything.md", "sh")
    lines = write_down.replace("http://127.0.0.1:8080", api.url).replace("limit=200", "limit=2")
    await in_shell(tmp_path, f"cd {tmp_path}\n{lines}")
    assert (tmp_path / "queues.txt").read_text().split() == sorted(names[:2] + names[3:])


async def held(api: Api, task: dict[str, Any]) -> None:
    async def is_held() -> bool:
        attempts = await api.attempts(task["id"])
        return bool(attempts) and attempts[0]["outcome"] == "held"

    await poll(is_held)
