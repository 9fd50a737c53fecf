"""The guides for Python: the tests that they show pass, and the shop that moves from Celery works in both forms."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sluice_client.testing import SluiceServer
from tests.docs.pages import ROOT, blocks, files

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(300)]

GUIDES = ROOT / "docs" / "guides"
SHOP = ROOT / "examples" / "from_celery"
CELERY = """
import json, os, shop_celery
from celery.contrib.testing.worker import start_worker

with start_worker(shop_celery.app, pool="solo", perform_ping_check=False, queues=["celery", "images"]):
    receipt = shop_celery.checkout(1, "ada@example.com").get(timeout=60)
    thumbs = shop_celery.add_picture("ada.png").get(timeout=60)
    print(json.dumps([receipt, shop_celery.outbox, thumbs]), flush=True)
    os._exit(0)  # its worker takes seconds to stop
"""
SLUICE = """
import asyncio, json, shop_sluice

async def main():
    async with shop_sluice.sluice as sluice:
        await sluice.queues.purge("mail")  # where the programs of another guide leave a thousand tasks
        working = asyncio.create_task(sluice.worker(queues=["mail", "images", "pages"]).run())
        receipt = await (await shop_sluice.checkout(1, "ada@example.com")).wait()
        batch = await shop_sluice.add_picture("ada.png")
        while not (task := (await sluice.batches.get(batch))["on_complete"][0]["task"]):
            await asyncio.sleep(0.05)
        thumbs = (await sluice.tasks.get(task, wait_seconds=60))["result"]
        print(json.dumps([receipt, shop_sluice.outbox, thumbs]), flush=True)
        working.cancel()

asyncio.run(main())
"""


async def run(folder: Path, *command: str, **variables: str) -> str:
    """What a program of this Python prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "*", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, f"{said.decode()}\n{complained.decode()}"
    return said.decode()


async def test_the_tests_of_the_guide_to_testing_pass(tmp_path: Path) -> None:
    for name, text in files(GUIDES / "testing-python.md").items():
        (tmp_path / name).write_text(text)
    said = await run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "anyio_mode=auto", ".")
    assert "7 passed" in said, said


async def test_the_programs_of_the_guide_to_tasks_do_what_it_says(sluice_server: SluiceServer, tmp_path: Path) -> None:
    page = GUIDES / "python-sdk.md"
    for name, text in files(page).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "audit.py").write_text(next(block for block in blocks(page, "python") if "class Audit" in block))
    here = {"SLUICE_URL": sluice_server.url}
    await run(tmp_path, "-m", "app.cli.main", "apply", "--app", "tasks:sluice", **here)
    said = (await run(tmp_path, "use.py", **here)).splitlines()
    assert said[0].endswith(" 2") and said[1] == "acme January 2026"
    assert said[2].startswith("[{'pointer': '/order/lines/1', 'detail': 'expected a string, ")
    assert said[3:] == ["1000 of 1000", "1000 enqueued"]
    await run(tmp_path, "audit.py")


async def test_the_shop_does_the_same_with_celery_and_with_sluice(sluice_server: SluiceServer, tmp_path: Path) -> None:
    memory = {"BROKER_URL": "memory://", "RESULT_URL": "cache+memory://", "PYTHONPATH": str(SHOP)}
    with_celery = json.loads((await run(tmp_path, "-c", CELERY, **memory)).splitlines()[-1])
    here = {"SLUICE_URL": sluice_server.url, "PYTHONPATH": str(SHOP)}
    await run(tmp_path, "-m", "app.cli.main", "apply", str(SHOP / "definitions.yaml"), **here)
    with_sluice = json.loads((await run(tmp_path, "-c", SLUICE, **here)).splitlines()[-1])
    thumbs = ["ada.png@1024", "ada.png@256", "ada.png@64"]
    assert with_celery == with_sluice == ["receipt of order 1", ["ada@example.com"] * 2, thumbs]


@pytest.mark.parametrize("block", blocks(GUIDES / "from-celery.md", "python"))
def test_the_guide_shows_the_shop_as_it_is(block: str) -> None:
    shown: list[Any] = [(SHOP / f"shop_{name}.py").read_text() for name in ("celery", "sluice")]
    assert any(block in text for text in shown)
