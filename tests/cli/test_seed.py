"""`make seed`: a service with tasks in every state, and schedules with a past."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.cli.seed import STATES
from tests.docs.ports import free_ports
from tests.sluices import ROOT
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def start(url: str, *arguments: str, folder: Path = ROOT) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.seed", *arguments),
        env={**os.environ, "SLUICE_URL": url, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_running_service_is_filled_with_tasks_in_every_state(service: httpx2.Client) -> None:
    process = await start(str(service.base_url), "--json")
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    queues: dict[str, dict[str, int]] = json.loads(out)["queues"]
    assert {state for counts in queues.values() for state in STATES if counts[state]} == set(STATES)

    def items(path: str) -> list[dict[str, Any]]:
        return list(service.get(path).raise_for_status().json()["items"])

    assert {task["reason"] for task in items("/tasks?state=dead&limit=200")} == {
        *("attempts_exhausted", "fatal_status", "stopped_by_handler", "stopped_by_worker", "expired")
    }
    assert [run["outcome"] for run in items("/schedules/daily-report/history")].count("ran_ok") >= 13
    assert {"ran_ok", "ran_failed"} <= {run["outcome"] for run in items("/schedules/hourly-sync/history")}
    await poll(lambda: {batch["sealed"] for batch in items("/batches") if batch["completed_at"]})
    assert [batch for batch in items("/batches") if not batch["sealed"]]

    again = await start(str(service.base_url), "--json")
    assert await again.wait() == 0, "a second time adds more of the same"


async def test_where_no_service_is_it_starts_one_and_takes_it_along(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    process = await start(url, folder=tmp_path)
    assert process.stderr is not None
    await process.stderr.readuntil(b"until Ctrl-C")
    async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
        assert (await client.get("/health/ready")).status_code == 200
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0
        with pytest.raises(httpx2.TransportError):
            await client.get("/health/ready")


async def test_a_service_that_could_not_deliver_here_is_refused() -> None:
    process = await start("http://sluice.example")
    said = (await process.communicate())[1].decode()
    assert process.returncode == 1 and "another machine" in said
