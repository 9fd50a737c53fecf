"""The pages about keys, run beside a Sluice that asks for keys."""

import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.domain.ids import make_api_key
from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import Replica

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

PAGES = ("guides/keys-and-permissions.md", "runbooks/rotate-keys.md")


@pytest.fixture
def key() -> str:
    return make_api_key().text


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_about_keys_can_be_followed_from_top_to_bottom(
    start_replica: Callable[..., Awaitable[Replica]],
    key: str,
    database_url: str,
    tmp_path: Path,
    page: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = await start_replica(bootstrap_key=key)
    async with replica.caller(key) as boss:
        made = (await boss.post("/keys", json={"scope": "use"})).json()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    lines = "\n".join(blocks(ROOT / "docs" / page, "sh")).replace("http://127.0.0.1:8080", replica.url)
    said = await in_shell(tmp_path, lines, SLUICE_KEY=key, SLUICE_DATABASE_URL=database_url)
    assert "slk_" in said and "acme" in said
    async with replica.caller(key) as boss:
        keys = (await boss.get("/keys")).json()["items"]
    if page.startswith("runbooks"):
        assert [one["revoked_at"] is not None for one in keys if one["id"] == made["id"]] == [True]
        assert sum(one["revoked_at"] is not None for one in keys) == 2
    else:
        assert {"mail", "billing-*"} in [set(one["queues"] or ()) for one in keys]
        assert False in [one["payloads"] for one in keys]
