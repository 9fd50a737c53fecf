"""What the reference of the client shows works, and lists all there is."""

import asyncio
import inspect
import re

import pytest

from sluice_client import errors
from sluice_client.api import Api
from sluice_client.api.group import Group
from tests.docs.pages import ROOT, blocks
from tests.sluices import Replica

PAGE = ROOT / "docs" / "reference" / "sdk.md"


@pytest.mark.ci
@pytest.mark.anyio
async def test_the_reference_shows_what_works(replica: Replica, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(PAGE, "python")
    await asyncio.to_thread(exec, program.replace("http://127.0.0.1:8080", replica.url), {})
    printed = capsys.readouterr().out
    assert "run_at" in printed and "422 invalid" in printed and "/priority" in printed


def test_the_reference_lists_every_error_and_every_group() -> None:
    text = PAGE.read_text()
    classes = {name for name, of in inspect.getmembers(errors, inspect.isclass) if issubclass(of, errors.SluiceError)}
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == classes
    groups = {name for name, of in vars(Api("http://127.0.0.1:9")).items() if isinstance(of, Group)}
    (listed,) = re.findall(r"They are in groups: (.*?);", text, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == groups
