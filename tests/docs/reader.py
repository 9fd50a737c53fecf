"""A reader who goes through a page from top to bottom: writes its files, and types its lines of shell as they stand.

Only two ports are others than in the page: 8080, where Sluice is, and 9000, where the reader's handler is.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.docs.pages import blocks, files
from tests.docs.ports import free_ports

# One shell for all blocks: variables, functions, folders and what was started go on from one to the next.
SHELL = """set -eo pipefail
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
while read -r block; do source "$block" < /dev/null; printf '\\n%s\\n' "$END"; done
"""
END = "-- end of the block --"


class Reader:
    def __init__(self, folder: Path, port: int, handler_port: int, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.handler_url = f"http://127.0.0.1:{handler_port}/"
        self._ports = {"8080": str(port), "9000": str(handler_port)}
        self._process = process
        self._count = 0

    async def types(self, lines: str, timeout_seconds: float = 60.0) -> str:
        """What these lines print. Every command must succeed, every request too, in a pipe as well."""
        self._count += 1
        block = self.folder / f".block{self._count}"
        block.write_text(self.with_ports(lines))
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{block}\n".encode())
        said: list[str] = []
        async with asyncio.timeout(timeout_seconds):
            async for line in self._process.stdout:
                said.append(line.decode())
                if said[-1].strip() == END:
                    return "".join(said[:-1])
        raise AssertionError(f"the shell ended in:\n{lines}\nafter saying:\n{''.join(said)}")

    def with_ports(self, text: str) -> str:
        return re.sub(r"\b(8080|9000)\b", lambda port: self._ports[port[0]], text)

    def writes(self, page: Path) -> None:
        """The page's files, each under the name its first line says."""
        for name, text in files(page).items():
            (self.folder / name).write_text(self.with_ports(text))

    async def reads(self, page: Path) -> str:
        """The whole page; what its lines of shell print."""
        self.writes(page)
        return "".join([await self.types(block) for block in blocks(page, "sh")])


@asynccontextmanager
async def reader(folder: Path, url: str) -> AsyncIterator[Reader]:
    """A shell in a folder of its own, beside a Sluice at this address; what it started ends with it."""
    (handler_port,) = free_ports(1)
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\nnoproxy = *\n")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", SHELL),
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CURL_HOME": str(folder),
            "END": END,
            "SLUICE_URL": url,
            "PYTHONUNBUFFERED": "1",
            "no_proxy": "*",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=2**20,
    )
    assert process.stdin is not None
    port = urlsplit(url).port
    assert port is not None
    try:
        yield Reader(folder, port, handler_port, process)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.communicate(), 30)
