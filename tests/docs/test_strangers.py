"""Handlers that readers copy or run, under what anybody on the internet may send them: refused, endured, and at work afterwards."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.delivery.webhook.signing import new_secret
from tests.docs.hostile import delivered, endures
from tests.docs.pages import ROOT, files
from tests.docs.ports import free_ports
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDES = ROOT / "docs" / "guides"
EXAMPLES = ROOT / "examples"
SECRET = new_secret()
SURVIVED = {"ConnectionResetError", "BrokenPipeError"}
"""What http.server tells of and goes on after."""


@asynccontextmanager
async def serving(folder: Path, *command: str | Path, **variables: str) -> AsyncIterator[str]:
    """Where a program listens, from then on until the block ends. Nothing may be wrong with it then.

    PORT in the command and 9000 in the files of the folder become a port of its own, which it is also told as PORT.
    """
    (port,) = free_ports(1)
    put_port(folder, port)
    process = await asyncio.create_subprocess_exec(
        *(str(port) if word == "PORT" else word for word in command),
        cwd=folder,
        env={
            **os.environ,
            "WEBHOOK_SECRET": SECRET,
            "PORT": str(port),
            "no_proxy": "*",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = asyncio.create_task(process.communicate())

    async def listens() -> bool:
        assert process.returncode is None, (await said)[0].decode()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await poll(listens, 30, every_seconds=0.05)
        yield f"http://127.0.0.1:{port}/"
        assert process.returncode is None, (await said)[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
        output = (await said)[0].decode()
    raised = set(re.findall(r"^(\w+(?:Error|Exception))\b", output, re.MULTILINE))
    assert raised <= SURVIVED, output


def put_port(folder: Path, port: int) -> None:
    for file in folder.iterdir():
        file.write_text(file.read_text().replace("9000", str(port)))


def copied(folder: Path, *pages: str) -> Path:
    """The files of these guides, as a reader would save them."""
    for page in pages:
        for name, text in files(GUIDES / page).items():
            (folder / name).write_text(text)
    return folder


async def is_well(url: str, body: bytes, answer: object, **headers: str) -> None:
    """It endures everything, then does what it is for, for Sluice alone."""
    await endures(url)
    reply = await delivered(url, SECRET, body, **headers)
    assert reply.status_code < 300 and (answer is None or reply.json() == answer)
    assert (await delivered(url, new_secret(), body, **headers)).status_code == 401
    for unexpected in (
        b"null",
        b"7",
        b"[" * 128 + b"]" * 128,
        b'{"name": {"x": []}}',
        b'{"amount": 1' + b"0" * 40 + b"}",
    ):
        await delivered(url, SECRET, unexpected, **headers)
    assert (await delivered(url, SECRET, body, **headers)).status_code == reply.status_code


async def test_the_handler_in_python(tmp_path: Path) -> None:
    async with serving(copied(tmp_path, "handlers.md"), sys.executable, "handler.py") as url:
        await is_well(url, b'{"name": "Ada"}', {"greeting": "Hello, Ada!"})
        assert (await delivered(url, SECRET, b'["no name"]')).status_code == 500


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
async def test_the_handler_in_node(tmp_path: Path) -> None:
    async with serving(copied(tmp_path, "handlers.md"), "node", "handler.js") as url:
        await is_well(url, b'{"name": "Ada"}', {"greeting": "Hello, Ada!"})
        assert (await delivered(url, SECRET, b"null")).status_code == 500


async def test_the_handler_that_fans_out(tmp_path: Path) -> None:
    async with serving(copied(tmp_path, "handlers.md", "fan-out.md"), sys.executable, "billing.py") as url:
        await is_well(url, b'{"month": "2026-11"}', {"done": {"month": "2026-11"}}, sluice_queue="closing")


async def test_the_handler_that_holds(tmp_path: Path) -> None:
    async with serving(copied(tmp_path, "handlers.md", "long-tasks.md"), sys.executable, "adder.py") as url:
        gone = {"sluice_task_url": "http://127.0.0.1:1/tasks/1", "sluice_lease_token": "x"}
        await is_well(url, b'{"numbers": []}', "accepted", **gone)


async def test_the_handler_that_takes_groups(tmp_path: Path) -> None:
    async with serving(copied(tmp_path, "handlers.md", "grouped-delivery.md"), sys.executable, "ledger.py") as url:
        task = b'{"id": "1", "payload": {"account": "ada", "amount": 5}}'
        await is_well(url, b'{"tasks": [' + task + b"]}", {"failures": [], "results": {"1": {"booked": 5}}})
        assert (await delivered(url, SECRET, b'{"no": "tasks"}')).status_code == 500


async def test_the_example_of_a_handler(tmp_path: Path) -> None:
    script = EXAMPLES / "handler" / "handler.py"
    async with serving(tmp_path, sys.executable, script) as url:
        await is_well(url, b'{"account": "ada", "amount": 5}', {"account": "ada", "balance": 5})
        too_much = await delivered(
            url, SECRET, b'{"account": "ada", "amount": 1' + b"0" * 40 + b"}", webhook_id="task-2"
        )
        assert (too_much.status_code, too_much.headers["sluice-retry"]) == (422, "no")


async def test_the_example_of_monthly_reports(tmp_path: Path, server_url: str) -> None:
    script = EXAMPLES / "monthly_reports" / "reports.py"
    async with serving(tmp_path, sys.executable, script, DATABASE_URL=server_url) as url:
        await endures(url)
        assert (await delivered(url, SECRET, b"{}", sluice_queue="nosuch")).headers["sluice-retry"] == "no"


async def test_the_example_of_a_bucket_that_is_cleaned_up(tmp_path: Path) -> None:
    script = EXAMPLES / "bucket_cleanup" / "cleanup.py"
    s3 = {"S3_ENDPOINT": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    async with serving(tmp_path, sys.executable, script, **s3) as url:
        await endures(url)
        assert (await delivered(url, SECRET, b"{}", sluice_queue="nosuch")).headers["sluice-retry"] == "no"


async def test_sluice_listen(tmp_path: Path) -> None:
    sluice = Path(sys.executable).with_name("sluice")
    async with serving(tmp_path, sluice, "listen", "PORT", "--secret", SECRET) as url:
        await is_well(url, b'{"name": "Ada"}', None)
        deep = await delivered(url, SECRET, b"[" * 100_000)
        assert deep.status_code == 200
