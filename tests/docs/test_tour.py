"""The README's tour, run as it stands there; only its two ports are others."""

import asyncio
import shutil
from pathlib import Path

import httpx2
import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.ports import free_ports
from tests.support import poll

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.ci,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is told in curl"),
]

# The block ends, and what it started goes on until stdin is closed: a reader's shell would go on, too.
FRAME = """set -eo pipefail
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
{tour}
touch done
read -r _ || true
"""


def the_tour() -> str:
    return next(block for block in blocks(ROOT / "README.md", "sh") if "curl" in block)


def test_it_has_ten_lines() -> None:
    assert len(the_tour().splitlines()) == 10


@pytest.mark.timeout(240)
async def test_it_does_what_the_readme_says(tmp_path: Path) -> None:
    port, handler_port = free_ports(2)
    tour = the_tour().replace("8080", str(port)).replace("9000", str(handler_port))
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / ".curlrc").write_text("fail-with-body\nno-progress-meter\nnoproxy = *\n")
    (tmp_path / "tour.sh").write_text(FRAME.format(tour=tour))
    process = await asyncio.create_subprocess_exec(
        *("bash", "tour.sh"),
        cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "CURL_HOME": str(tmp_path), "SLUICE_PORT": str(port)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    said = asyncio.create_task(process.stdout.read())
    try:
        await poll(lambda: (tmp_path / "done").exists() or process.returncode is not None, 90, every_seconds=0.05)
        if process.returncode is None:
            await check(f"http://127.0.0.1:{port}")
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)
    output = (await said).decode()
    assert (tmp_path / "done").exists(), f"bash ended with {process.returncode}:\n{output}"
    for seen in (
        "whsec_",
        "HTTP/1.1 200 OK",
        "idempotent-replayed: true",
        '"outcome":"failed"',
        '"state":"cancelled"',
        '"per_minute"',
        'sluice_attempts_total{outcome="succeeded",queue="mail"',
        "failed as asked",
    ):
        assert seen in output, seen


async def check(url: str) -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:

        async def ended() -> list[dict[str, object]]:
            tasks = (await client.get("/tasks?queue=mail")).json()["items"]
            return tasks if all(task["ended_at"] for task in tasks) else []

        later, first = await poll(ended, 30)
        assert (later["state"], later["reason"], later["attempt"]) == ("cancelled", "requested", 0)
        assert (first["state"], first["attempt"]) == ("succeeded", 2)
