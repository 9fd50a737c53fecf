"""Handlers that readers copy, under what anybody on the internet may send them: refused, endured, and at work afterwards."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.delivery.signing import new_secret
from tests.docs.hostile import delivered, endures
from tests.docs.pages import ROOT, files
from tests.docs.ports import free_ports
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDES = ROOT / "docs" / "guides"
SECRET = new_secret()


@asynccontextmanager
async def serving(
    folder: Path, page: str, name: str, **variables: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A file of a guide's page as a process, and where it listens once it does; nothing may be wrong with it afterwards."""
    (port,) = free_ports(1)
    for file, text in files(GUIDES / page).items():
        (folder / file).write_text(text.replace("9000", str(port)))
    program = sys.executable if name.endswith(".py") else "node"
    process = await asyncio.create_subprocess_exec(
        *(program, name),
        cwd=folder,
        env={**os.environ, "WEBHOOK_SECRET": SECRET, "no_proxy": "*", "PYTHONUNBUFFERED": "1", **variables},
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
        await poll(listens, 20, every_seconds=0.05)
        yield f"http://127.0.0.1:{port}/", process
        assert process.returncode is None, (await said)[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
        output = (await said)[0].decode()
    raised = set(re.findall(r"^(\w+(?:Error|Exception))\b", output, re.MULTILINE))
    assert raised <= {"ConnectionResetError", "BrokenPipeError"}, (
        output
    )  # the standard library's own, told and survived


@pytest.mark.parametrize("name", ["handler.py", "handler.js"])
async def test_the_handlers_of_the_guide(name: str, tmp_path: Path) -> None:
    if name.endswith(".js") and shutil.which("node") is None:
        pytest.skip("there is no node")
    async with serving(tmp_path, "handlers.md", name) as (url, _):
        await endures(url)
        answer = await delivered(url, SECRET, b'{"name": "Ada"}')
        assert (answer.status_code, answer.json()) == (200, {"greeting": "Hello, Ada!"})
        for unexpected in (b"null", b"7", b"[" * 128 + b"]" * 128, b'{"name": {"x": []}}'):
            assert (await delivered(url, SECRET, unexpected)).status_code in (200, 500)
        assert (await delivered(url, new_secret(), b'{"name": "Ada"}')).status_code == 401
