"""The pages' lines of shell, run as a reader would."""

import asyncio
import os
from pathlib import Path


async def in_shell(folder: Path, lines: str, **variables: str) -> str:
    """What these lines print; every request must succeed."""
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\nnoproxy = *\n")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eo", "pipefail", "-c", lines),
        env={"PATH": os.environ["PATH"], "CURL_HOME": str(folder), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert process.returncode == 0, said
    return said
