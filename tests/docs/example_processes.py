"""Examples as processes of their own, defined by the lines of their README."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT
from tests.docs.shell import in_shell
from tests.wire.api import Api


@asynccontextmanager
async def example(script: str, **variables: str) -> AsyncIterator[str]:
    """The URL of examples/SCRIPT, listening on a port of its own until the block ends."""
    process = await _start(script, stdout=asyncio.subprocess.PIPE, **{"PORT": "0", **variables})
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line.startswith(b"listening on http"), line
        yield line.decode().split()[-1]
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()


async def run_example(script: str, *arguments: str, **variables: Any) -> None:
    """Run examples/SCRIPT to its end, which must be a good one."""
    process = await _start(script, *arguments, **variables)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def _start(
    script: str, *arguments: str, stdout: int | None = None, **variables: Any
) -> asyncio.subprocess.Process:
    path = ROOT / "examples" / script
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "*", **variables}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(path), *arguments), cwd=path.parent, env=environment, stdout=stdout
    )


async def apply(folder: Path, lines: str, api: Api, handler_url: str, secret: str) -> None:
    """Run the lines that apply an example's definitions, as from the root of the repository."""
    settings = {"SLUICE_URL": api.url, "HANDLER_URL": handler_url, "WEBHOOK_SECRET": secret}
    await in_shell(folder, f"cd {ROOT}\n{lines}", **settings)


def files_in(folder: Path) -> list[str]:
    """Names of all files below, drafts included, relative to the folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
