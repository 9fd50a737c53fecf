"""examples/integrations: each by hand and with sluice-client, doing the same; and how many lines each has."""

import ast
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from app.delivery.webhook.signing import new_secret
from sluice_client.testing import SluiceServer
from tests.docs.pages import ROOT
from tests.support import poll
from tests.wire.api import Api, fresh, good

pytestmark = pytest.mark.anyio

FOLDER = ROOT / "examples" / "integrations"
SECRET = new_secret()
FORMS = ("by_hand", "sdk")
STATED = {"signup": 42, "thumbs": 23, "statements": 41}
"""What new users needed by hand, when the SDK was asked for."""


def script(name: str, form: str) -> str:
    return name if form == "sdk" else f"{name}_by_hand"


def lines_of_code(name: str) -> int:
    """Lines without blank ones, comments and docstrings."""
    text = (FOLDER / f"{name}.py").read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if number not in docstrings and line.strip() and not line.strip().startswith("#")
    )


@pytest.mark.parametrize("name", STATED)
def test_with_the_sdk_it_takes_at_most_half_the_lines(name: str) -> None:
    by_hand, with_sdk = (lines_of_code(script(name, form)) for form in FORMS)
    assert with_sdk * 2 <= min(by_hand, STATED[name])


def test_the_readme_states_the_lines_as_they_are() -> None:
    rows = re.findall(
        r"^\| .*\[by hand\]\((\w+)\.py\).* \| (\d+) \| (\d+) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    assert {name.removesuffix("_by_hand"): (int(by_hand), int(sdk)) for name, by_hand, sdk in rows} == {
        name: (lines_of_code(f"{name}_by_hand"), lines_of_code(name)) for name in STATED
    }


@asynccontextmanager
async def running(*command: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process in the folder of the examples, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=FOLDER,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "*", "WEBHOOK_SECRET": SECRET, **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def served(name: str, server: SluiceServer) -> AsyncIterator[str]:
    """The address of an app of the examples."""
    command = ("-m", "uvicorn", "--port", "0", "--timeout-graceful-shutdown", "1", f"{name}:app")
    async with running(*command, SLUICE_URL=server.url) as process:
        assert process.stderr is not None
        printed = []
        async with asyncio.timeout(30):
            async for line in process.stderr:
                printed.append(line.decode())
                if found := re.search(r"running on (http://[\d.:]+)", printed[-1]):
                    break
            else:
                raise AssertionError("".join(printed))
        yield found[1]


@pytest.fixture
async def api(sluice_server: SluiceServer) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=sluice_server.url, trust_env=False, verify=False, timeout=70) as client:
        yield Api(client, sluice_server.url)


async def define(api: Api, url: str, *queues: str) -> None:
    """A handler at this address, and queues that name it."""
    handler = fresh("h")
    await api.put(f"/handlers/{handler}", json={"url": url, "secret": SECRET})
    for queue in queues:
        (await api.put(f"/queues/{queue}", json={"handler": handler})).raise_for_status()


@pytest.mark.ci
@pytest.mark.parametrize("form", FORMS)
async def test_an_app_is_its_own_handler(form: str, api: Api, sluice_server: SluiceServer) -> None:
    async with served(script("signup", form), sluice_server) as app:
        tasks = f"{app}/tasks/" if form == "sdk" else f"{app}/tasks"  # a mount answers below its path
        await define(api, tasks, "mail")
        task = good(await api.post(f"{app}/signup/7"))["task"]
        found = good(await api.get(f"/tasks/{task}", params={"wait_seconds": 30}))
        assert (found["state"], found["type"], found["result"]) == ("succeeded", "send_welcome", {"sent_to": 7})
        wrong = await api.enqueue("mail", {"user_id": "seven"}, type="send_welcome")
        found = good(await api.get(f"/tasks/{wrong['id']}", params={"wait_seconds": 30}))
        assert (found["state"], found["reason"], found["attempt"]) == ("dead", "stopped_by_handler", 1)
        assert (await api.post(tasks, json={})).status_code == 401


@pytest.mark.ci
@pytest.mark.parametrize("form", FORMS)
async def test_a_worker_pulls_its_tasks(form: str, api: Api, sluice_server: SluiceServer) -> None:
    (await api.put("/queues/thumbs", json={})).raise_for_status()
    async with running(f"{script('thumbs', form)}.py", SLUICE_URL=sluice_server.url):
        task = await api.enqueue("thumbs", {"image": "ada.png", "width": 64}, type="make_thumb")
        found = good(await api.get(f"/tasks/{task['id']}", params={"wait_seconds": 30}))
        assert (found["state"], found["result"]) == ("succeeded", {"thumb": "ada.png@64"})


@pytest.mark.ci
@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", FORMS)
async def test_a_nightly_run_writes_every_statement_and_closes_the_month(
    form: str, api: Api, sluice_server: SluiceServer
) -> None:
    async with served(script("statements", form), sluice_server) as app:
        await define(api, f"{app}/tasks", "nightly", "statements", "closing")
        root = await api.enqueue("nightly", {}, type="list_customers")
        await api.ended(root["id"])

        async def completed() -> str | None:
            (completion,) = good(await api.get(f"/batches/{root['id']}"))["on_complete"]
            return completion["task"]

        closing = await poll(completed, 60, every_seconds=0.1)
        found = good(await api.get(f"/tasks/{closing}", params={"wait_seconds": 30}))
        assert (found["state"], found["result"]) == ("succeeded", {"closed": root["id"]})
        batch = good(await api.get(f"/batches/{root['id']}"))
        assert (batch["total"], batch["counts"]["succeeded"]) == (253, 253)
