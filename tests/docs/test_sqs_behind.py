"""The guide on tasks that leave to SQS, run as a reader would."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.domain.handlers import HandlerDefinition
from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import Replica

if TYPE_CHECKING:
    from tests.sqs_server import SqsServer

GUIDE = ROOT / "docs" / "guides" / "sqs-behind.md"


def test_its_yaml_is_a_valid_handler() -> None:
    import yaml

    (given,) = (yaml.safe_load(block)["handlers"]["invoicing"] for block in blocks(GUIDE, "yaml"))
    assert HandlerDefinition(**given).check() == []


@pytest.mark.ci
@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl")
async def test_its_lines_send_a_task_to_sqs(replica: Replica, sqs: "SqsServer", tmp_path: Path) -> None:
    (lines,) = blocks(GUIDE, "sh")
    lines = re.sub(r"moto_server .*\n", "", lines)
    lines = lines.replace("http://127.0.0.1:8080", replica.url).replace("http://127.0.0.1:9000", sqs.url)
    said = await in_shell(tmp_path, lines)
    result = re.search(r'"state":"succeeded".*"result":"([0-9a-f-]{36})"', said)
    assert result is not None and result[1] in said.rpartition('"Messages"')[2], said
    assert "order-7" in said.rpartition('"Messages"')[2]
