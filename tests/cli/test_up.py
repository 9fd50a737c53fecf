"""`sluice up` as a process: on a database given, and with the Postgres that comes along."""

import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from app.embedded.postgres import running_url
from app.version import VERSION
from tests.embedded.processes import alive
from tests.handlers import Handler, Reply
from tests.sluices import Replica, SluiceProcess

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

Start = Callable[..., Awaitable[SluiceProcess]]


async def define(client: httpx2.AsyncClient, handler: Handler) -> None:
    (await client.put("/handlers/hello", json={"url": handler.url})).raise_for_status()
    retry = {"backoff": {"kind": "fixed", "seconds": 0.1}}
    (await client.put("/queues/hello", json={"handler": "hello", "retry": retry})).raise_for_status()


async def test_a_task_goes_in_at_a_process_and_comes_out_at_a_handler(sluice: SluiceProcess, handler: Handler) -> None:
    await define(sluice.client, handler)
    handler.answer(Reply(500))
    task = (await sluice.client.post("/queues/hello/tasks", json={"payload": {"n": 1}})).json()
    first, second = await handler.received(2, task=task["id"])
    assert first.body == second.body == b'{"n":1}'
    assert [request.headers["sluice-attempt"] for request in (first, second)] == ["1", "2"]
    assert await sluice.terminate() == 0


async def test_replicas_in_this_process_share_a_database(replicas: list[Replica], handler: Handler) -> None:
    await define(replicas[0].client, handler)
    for replica in replicas:
        answer = await replica.client.post("/queues/hello/tasks", json={"payload": 1})
        assert answer.status_code == 201
    await handler.received(3)


async def test_without_a_database_it_brings_one_and_takes_it_along_when_it_stops(
    start_sluice: Start, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    environment = {"SLUICE_DATABASE_URL": None, "SLUICE_DATA_DIR": str(data)}
    first = await start_sluice(**environment)
    url = running_url(data)
    assert url is not None
    second = await start_sluice(ready=False, **environment)
    assert await second.ended() == 1
    assert f"pid {first.pid}" in second.output and url in second.output
    joined = await start_sluice(SLUICE_DATABASE_URL=url)
    assert (await joined.client.put("/queues/q", json={})).status_code == 201
    assert (await first.client.get("/queues/q")).status_code == 200
    assert await joined.terminate() == 0
    postmaster = int((data / "pg" / "postmaster.pid").read_text().split("\n")[0])
    assert await first.terminate() == 0
    assert not alive(postmaster)
    [stopped], [database] = first.events("replica_stopped"), first.events("database_stopped")
    assert first.events("database_started") and database["seconds"] >= 0
    assert stopped["uptime_seconds"] > 0


async def test_one_replica_takes_tasks_and_another_delivers_them(
    start_sluice: Start, tmp_path: Path, handler: Handler
) -> None:
    """The two commands of docs/concepts/performance.md."""
    data = tmp_path / "data"
    taking = await start_sluice(SLUICE_DATABASE_URL=None, SLUICE_DATA_DIR=str(data), SLUICE_ROLE="api")
    await define(taking.client, handler)
    task = (await taking.client.post("/queues/hello/tasks", json={"payload": 1})).json()
    url = (data / "url").read_text().strip()
    delivering = await start_sluice(SLUICE_DATABASE_URL=url, SLUICE_ROLE="engine")
    await handler.received(1, task=task["id"])
    assert (await delivering.client.post("/queues/hello/tasks", json={"payload": 2})).status_code == 404
    shown = (await taking.client.get(f"/tasks/{task['id']}?wait_seconds=5")).json()
    assert shown["state"] == "succeeded"
    assert await delivering.terminate() == await taking.terminate() == 0


async def test_a_killed_sluice_starts_again_on_its_directory(start_sluice: Start, tmp_path: Path) -> None:
    environment = {"SLUICE_DATABASE_URL": None, "SLUICE_DATA_DIR": str(tmp_path / "data")}
    first = await start_sluice(**environment)
    assert (await first.client.put("/queues/q", json={})).status_code == 201
    await first.kill()
    second = await start_sluice(**environment)
    assert (await second.client.get("/queues/q")).status_code == 200
    second.signal(signal.SIGINT)
    assert await second.ended() == 0


async def test_contradictions_refuse_to_start_and_say_what_to_do(start_sluice: Start) -> None:
    process = await start_sluice("--host", "0.0.0.0", ready=False, SLUICE_AUTH="off", SLUICE_PROT="1")
    assert await process.ended() == 2
    assert "listen on 127.0.0.1, or leave SLUICE_AUTH out" in process.output
    assert "SLUICE_PROT is not a setting, did you mean SLUICE_PORT?" in process.output


async def test_the_log_is_json_lines(sluice: SluiceProcess) -> None:
    await sluice.terminate()
    assert all(isinstance(json.loads(line), dict) for line in sluice.lines)
    assert sluice.events("ready")[0]["url"] == sluice.url


async def test_a_replica_says_in_its_log_as_what_it_runs_and_that_it_has_ended_in_order(sluice: SluiceProcess) -> None:
    [started], [ready] = sluice.events("replica_started"), sluice.events("ready")
    assert (started["version"], started["role"], started["url"]) == (VERSION, "all", sluice.url)
    assert not sluice.events("replica_stopped")
    await sluice.terminate()
    [stopped] = sluice.events("replica_stopped")
    assert stopped["replica"] == started["replica"] == ready["replica"]
    assert 0 < stopped["uptime_seconds"] < 600
    assert not sluice.events("database_stopped"), "the database given is not this replica's to stop"
    assert not sluice.events("loop_died")


async def test_a_taken_port_is_told_in_a_sentence(sluice: SluiceProcess, start_sluice: Start) -> None:
    second = await start_sluice("--port", sluice.url.rsplit(":", 1)[1], ready=False)
    assert await second.ended() == 1
    assert "Choose another --host or --port" in second.output and "Traceback" not in second.output
