"""The guide to Celery on Sluice, followed line by line: a real worker, a webhook beside it, and a queue that is handed over."""

import base64
import json
import shlex
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.service import keys
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import reader
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

PAGE = ROOT / "docs" / "guides" / "celery-on-sluice.md"
EXAMPLE = ROOT / "examples" / "celery-on-sluice"


@pytest.mark.parametrize("block", blocks(PAGE, "python"))
def test_the_guide_shows_the_example_as_it_is(block: str) -> None:
    assert any(block in path.read_text() for path in EXAMPLE.glob("*.py"))


@pytest.mark.ci
@pytest.mark.anyio
async def test_a_celery_worker_and_a_webhook_share_the_tasks_of_an_application(
    start_replica: Callable[..., Awaitable[Replica]], tmp_path: Path
) -> None:
    root = make_api_key().text
    replica = await start_replica(bootstrap_key=root, sqs_port=0)
    key = await keys.create(replica.sluice.core.db, "default", Grant("manage", kind="aws"), replica.sluice.core.vault)
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "results").mkdir()
    variables = {
        "PORT": "9000",
        "BROKER_URL": replica.sluice.wires["sqs"].replace("http:", "sqs:"),
        "RESULT_URL": f"file://{tmp_path}/results",
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.token,
        "SLUICE_KEY": root,
    }
    _installing, ordering, beside, handing_over, listing = blocks(PAGE, "sh")

    async with replica.caller(root) as client, reader(tmp_path, replica.url) as reading:
        api = Api(client, replica.url)
        await reading.types(f"export {' '.join(f'{name}={shlex.quote(value)}' for name, value in variables.items())}")
        await reading.types('curl() { command curl -H "authorization: Bearer $SLUICE_KEY" "$@"; }')
        said = await reading.types(ordering)
        assert said.split("\n")[:3] == ["12", "charged order 1 at attempt 2", "reminded of order 1"]
        await reading.types(beside)
        await _all_succeeded(api, 5)
        assert "2147483647" not in await reading.types(f"COLUMNS=200\n{listing}"), "receives are unlimited: no number"
        await reading.types(handing_over)
        tasks = await _all_succeeded(api, 6)
        shown = await reading.types(f"COLUMNS=200\n{listing}")

    log = (tmp_path / "worker.log").read_text()
    assert (log.count(" received\n"), log.count(" succeeded in "), log.count(" retry: ")) == (4, 3, 1), log
    assert {task["attempt"] for task in tasks} == {1}
    by_webhook = [(task["queue"], task["result"]) for task in tasks if task["result"]]
    assert sorted(by_webhook) == [("orders", 17), ("totals", 13)]
    assert all(task["id"] in shown for task in tasks), shown
    _ran_no_earlier_than_its_eta(
        next(sent for task in tasks if (sent := _sent(task))["task"].endswith("remind")), tmp_path
    )


async def _all_succeeded(api: Api, count: int) -> list[dict[str, Any]]:
    """All tasks, once there are so many and each has succeeded."""
    tasks: list[dict[str, Any]] = []

    async def ended() -> bool:
        nonlocal tasks
        tasks = [good(await api.get(f"/tasks/{task['id']}")) for task in good(await api.get("/tasks"))["items"]]
        return len(tasks) == count and {task["state"] for task in tasks} == {"succeeded"}

    await poll(ended, 20)
    return tasks


def _sent(task: dict[str, Any]) -> dict[str, Any]:
    """The headers with which Celery sent this task."""
    headers: dict[str, Any] = json.loads(base64.b64decode(task["payload"]))["headers"]
    return headers


def _ran_no_earlier_than_its_eta(sent: dict[str, Any], folder: Path) -> None:
    result = json.loads((folder / "results" / f"celery-task-meta-{sent['id']}").read_text())
    done = datetime.fromisoformat(result["date_done"])
    assert (done if done.tzinfo else done.replace(tzinfo=UTC)) >= datetime.fromisoformat(sent["eta"])
