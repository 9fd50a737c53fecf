"""The guide for SQS clients, followed with boto3 and with the AWS CLI."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.service import keys
from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import Replica

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

PAGE = ROOT / "docs" / "guides" / "sqs-wire.md"
WIRE = "http://127.0.0.1:9324"


@pytest.fixture
async def guarded(start_replica: Callable[..., Awaitable[Replica]]) -> Replica:
    return await start_replica(bootstrap_key=make_api_key().text, sqs_port=0)


@pytest.fixture
async def variables(guarded: Replica) -> dict[str, str]:
    """What the guide has the reader put into the environment."""
    core = guarded.sluice.core
    key = await keys.create(core.db, "acme", Grant("manage", kind="aws"), core.vault)
    return {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.token}


async def test_boto3_sends_and_receives_as_the_guide_says(
    guarded: Replica, variables: dict[str, str], tmp_path: Path
) -> None:
    (code,) = blocks(PAGE, "python")
    program = tmp_path / "program.py"
    program.write_text(code.replace(WIRE, guarded.sluice.wires["sqs"]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, env={**os.environ, **variables, "no_proxy": "*"}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode()) == (0, '{"to": "ada"}\n')


@pytest.mark.long
async def test_the_aws_cli_sends_and_receives_as_the_guide_says(
    guarded: Replica, variables: dict[str, str], tmp_path: Path
) -> None:
    for command in ((sys.executable, "-m", "venv", "aws"), ("aws/bin/pip", "install", "-q", "awscli>=1.31")):
        installing = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
        assert await asyncio.wait_for(installing.wait(), 300) == 0
    (lines,) = [block for block in blocks(PAGE, "sh") if "create-queue" in block]
    lines = f"PATH={tmp_path}/aws/bin:$PATH\n{lines}".replace(WIRE, guarded.sluice.wires["sqs"])
    said = await in_shell(tmp_path, lines, no_proxy="*", HOME=str(tmp_path), **variables)
    assert '"Body": "hello"' in said and variables["AWS_ACCESS_KEY_ID"] in said
