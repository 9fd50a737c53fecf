"""The guide to definitions as code: its file, its commands and its requests, against a real replica."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import Replica
from tests.wire.api import Api, good

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

PAGE = ROOT / "docs" / "guides" / "definitions.md"


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


async def test_the_guide_to_definitions(api: Api, tmp_path: Path) -> None:
    [file] = blocks(PAGE, "yaml")
    (tmp_path / "definitions.yaml").write_text(file)
    apply, prune, requests = (f"cd {tmp_path}\n{block}" for block in blocks(PAGE, "sh"))
    said, _ = blocks(PAGE, "text")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {"SLUICE_URL": api.url, "S": api.url, "PATH": path}
    first = await in_shell(tmp_path, apply, **variables)
    assert first == f"{said}{said}Applied.\n0 to create, 0 to change, 0 to delete, 4 as it is.\n"
    assert good(await api.get("/queues/mail"))["max_concurrency"] == 200
    exports = "\n".join(line for line in apply.splitlines() if line.startswith("export"))
    pruned = await in_shell(tmp_path, f"{exports}\n{prune}", **variables)
    assert pruned.count("- schedule newsletter\n") == 2 and "    secret: *** → ***\n" in pruned
    assert (await api.get("/schedules/newsletter")).status_code == 404
    assert good(await api.get("/limits")) == {"max_concurrency": 5}
    await in_shell(tmp_path, requests, **variables)
    assert good(await api.get("/queues/mail"))["max_concurrency"] == 20
