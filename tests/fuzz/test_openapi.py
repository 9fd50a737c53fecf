"""Whatever the OpenAPI document lets one send, and much that it does not, is answered as the document says, never by 5xx.

`make fuzz` takes about 40 s and always the same seed. By hand, for longer, so many examples an operation:
`SLUICE_TEST_FUZZ_EXAMPLES=1000 SLUICE_TEST_FUZZ_SEED=7 make fuzz`.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.sluices import SluiceProcess
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.fuzz]

EXAMPLES = int(os.environ.get("SLUICE_TEST_FUZZ_EXAMPLES", "10"))
SEED = int(os.environ.get("SLUICE_TEST_FUZZ_SEED", "1"))
KEY = "slk_fuzz_fuzz_fuzz_fuzz_fuzz"
HERE = Path(__file__).parent

StartSluice = Callable[..., Awaitable[SluiceProcess]]


@pytest.mark.timeout(120 + 30 * EXAMPLES)
async def test_every_answer_is_one_that_the_document_names(
    start_sluice: StartSluice, handler: Handler, tmp_path: Path
) -> None:
    sluice = await start_sluice(SLUICE_BOOTSTRAP_KEY=KEY, SLUICE_AUTH="on", SLUICE_EGRESS_ALLOW="127.0.0.0/8")
    sluice.client.headers["authorization"] = f"Bearer {KEY}"
    known = await populate(Api(sluice.client, sluice.url), handler)
    output = await schemathesis(sluice.url, known, tmp_path)
    cases = re.search(r"Test cases:\n +([\d,]+) generated", output)
    assert cases, output
    print(f"\n{cases[1]} cases, seed {SEED}")
    assert not [line for line in sluice.lines if '"level": "error"' in line]
    assert good(await sluice.client.get("/health/ready"))


async def populate(api: Api, handler: Handler) -> dict[str, list[str]]:
    """Something of everything that a path or a lease token can name."""
    handler.script(Reply(200))
    good(await api.put("/handlers/push", json={"url": handler.url}), 201)
    for queue, fields in (("push", {"handler": "push", "retry": AT_ONCE}), ("pull", {})):
        good(await api.put(f"/queues/{queue}", json=fields), 201)
    waiting = [await api.enqueue("pull", n, delay_seconds=3600 * (n % 2)) for n in range(4)]
    ended = await api.enqueue("push")
    await api.until(ended["id"], "succeeded")
    leased = good(await api.post("/queues/pull/leases", json={"max_tasks": 2, "lease_seconds": 3600}))["tasks"]
    return {
        "name": ["push", "pull"],
        "task_id": [task["id"] for task in (*waiting, ended)],
        "token": [task["lease_token"] for task in leased],
    }


async def schemathesis(url: str, known: dict[str, Any], directory: Path) -> str:
    """What it printed; fails with that if it found anything."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
        *("--max-examples", str(EXAMPLES), "--seed", str(SEED)),
        *("--continue-on-failure", "--no-color", "--generation-database", "none", "--warnings", "off"),
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "SLUICE_TEST_KNOWN": json.dumps(known)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output
    return output
