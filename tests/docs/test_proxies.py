"""What the guide to proxies says of limits is what the code has, and its nginx does what it says."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from app.api.definitions import MAX_BYTES
from app.cli import tasks, worker
from app.domain.answers import MAX_FOLLOWUP_BYTES
from app.domain.bulk import MAX_BULK_BYTES
from app.edge.config import EdgeConfig
from app.edge.protocol import BODY_SECONDS, LEAST_BYTES_PER_SECOND
from app.settings import Settings
from tests.docs.pages import PAGES, ROOT, blocks
from tests.docs.ports import free_ports
from tests.sluices import Replica
from tests.support import poll

GUIDE = ROOT / "docs" / "guides" / "behind-a-proxy.md"
KEY = "slk_exampleonly0_replaceThisBeforeAnybodyElseCanReachIt004XdiHf"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
MIB = 1_048_576
ASKED = 50
"""Seconds that a request of ours waits at most: many proxies cut it at 60."""


def test_the_guide_names_the_limits_that_the_code_has() -> None:
    rows = dict(re.findall(r"^\| (`POST [^|]+) \| ([^|]+) \|$", GUIDE.read_text(), re.MULTILINE))
    largest = {name: text for names, text in rows.items() for name in re.findall(r"`POST ([^`]+)`", names)}
    assert largest["/queues/{name}/tasks/bulk"] == largest["/batches"] == f"{MAX_BULK_BYTES // MIB} MiB"
    assert largest["/definitions/apply"] == f"{MAX_BYTES // MIB} MiB"
    assert largest["/tasks/{id}/complete"] == f"{MAX_FOLLOWUP_BYTES // MIB} MiB"
    payload = Settings.model_fields["max_payload_bytes"].default
    overhead = EdgeConfig(None, None).max_body_bytes - MIB  # type: ignore[arg-type]
    assert (
        largest["/queues/{name}/tasks"]
        == f"`SLUICE_MAX_PAYLOAD_BYTES` ({payload // MIB} MiB) and {overhead // 1024} KiB"
    )


def test_the_guide_names_the_rate_that_bodies_must_have() -> None:
    wanted = f"After its first {BODY_SECONDS:g} seconds, a body has to arrive at {LEAST_BYTES_PER_SECOND // 1024} KiB per second"
    assert wanted in GUIDE.read_text()


def test_the_guides_nginx_waits_longer_and_takes_more_than_sluice() -> None:
    (configuration,) = blocks(GUIDE, "nginx")
    openapi = json.loads((ROOT / "openapi" / "openapi.json").read_text())
    (wait,) = (p for p in openapi["paths"]["/tasks/{task_id}"]["get"]["parameters"] if p["name"] == "wait_seconds")
    seconds, megabytes = (
        int(found[1])
        for found in (
            re.search(r"proxy_read_timeout (\d+)s;", configuration),
            re.search(r"client_max_body_size (\d+)m;", configuration),
        )
        if found
    )
    assert seconds > wait["schema"]["maximum"] and megabytes * MIB > MAX_BULK_BYTES


def test_nothing_of_ours_waits_so_long_that_a_proxy_would_cut_it() -> None:
    assert max(worker.WAIT_SECONDS, tasks.MAX_WAIT_SECONDS) <= ASKED
    sources = [*PAGES, *ROOT.glob("examples/**/*.py"), *ROOT.glob("app/cli/*.py")]
    asked = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in sources
        for found in re.finditer(r"wait_seconds\W{1,4}(\d+)\b(?!\.\.)", path.read_text())
        if int(found[1]) > ASKED
    }
    assert not asked


@pytest.fixture
async def through_nginx(start_replica: Callable[..., Awaitable[Replica]], tmp_path: Path) -> AsyncIterator[str]:
    """The address of the guide's nginx before a replica that asks for a key."""
    (port,) = free_ports(1)
    replica = await start_replica(auth="on", bootstrap_key=KEY, public_url=f"http://127.0.0.1:{port}")
    (configuration,) = blocks(GUIDE, "nginx")
    configuration = configuration.replace("8080", str(urlsplit(replica.url).port))
    configuration = re.sub(r"listen 8443;.*", f"listen 127.0.0.1:{port};", configuration)
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{configuration} }}\n"
    )
    command = [NGINX, "-p", str(tmp_path), "-e", f"{tmp_path}/error.log", "-c", str(tmp_path / "nginx.conf")]
    process = await asyncio.create_subprocess_exec(*command)

    async def listens() -> bool:
        assert process.returncode is None, (tmp_path / "error.log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await poll(listens, 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.ci
@pytest.mark.anyio
@pytest.mark.skipif(not Path(NGINX).exists(), reason="there is no nginx")
async def test_the_guides_nginx_lets_waits_and_large_bodies_through(through_nginx: str) -> None:
    key = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=through_nginx, headers=key, trust_env=False, timeout=60) as client:
        (await client.put("/queues/q", json={})).raise_for_status()
        waiting = asyncio.create_task(client.post("/queues/q/leases", json={"wait_seconds": 50}))
        task = await client.post("/queues/q/tasks", json={"payload": 1})
        assert task.headers["location"].startswith(f"{through_nginx}/tasks/")
        [leased] = (await waiting).json()["tasks"]
        assert leased["id"] == task.json()["id"]
        many = {"tasks": [{"payload": "x" * 400_000} for _ in range(10)]}
        results = (await client.post("/queues/q/tasks/bulk", json=many)).raise_for_status().json()["results"]
        assert [result["status"] for result in results] == [201] * 10
