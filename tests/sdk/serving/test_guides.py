"""The programs of the guides to workers, FastAPI and Django, as processes beside a real service."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.delivery.webhook.signing import new_secret
from tests.docs.pages import ROOT, files
from tests.docs.ports import free_ports
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDES = ROOT / "docs" / "guides"
SERVE_WSGI = """
import sys
from wsgiref.simple_server import make_server
{application}
make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
"""
DJANGO = """
import django
from django.conf import settings
databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "ATOMIC_REQUESTS": True}}
settings.configure(ROOT_URLCONF="urls", DATABASES=databases, ALLOWED_HOSTS=["*"],
                   EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")
django.setup()
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


def written(page: str, folder: Path) -> None:
    """Write the programs of a guide into a folder."""
    for name, code in files(GUIDES / page).items():
        (folder / name).write_text(code)


@asynccontextmanager
async def program(
    folder: Path, api: Api, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env={**os.environ, "SLUICE_URL": api.url, "PYTHONPATH": str(folder), **environment},
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_worker_of_the_guide_works_and_ends_by_a_signal(api: Api, tmp_path: Path) -> None:
    written("python-workers.md", tmp_path)
    for queue in ("reports", "thumbnails"):
        good(await api.put(f"/queues/{queue}", json={}), 201)
    async with program(tmp_path, api, "reports.py") as process:

        async def ended(queue: str, kind: str, **payload: Any) -> dict[str, Any]:
            return await api.ended((await api.enqueue(queue, payload, type=kind))["id"])

        day = date(2026, 11, 1).isoformat()
        task = await ended("reports", "monthly_report", tenant="ada", month=day)
        assert (task["state"], task["result"]) == ("succeeded", 3)
        assert (await ended("reports", "monthly_report", tenant="closed", month=day))["state"] == "dead"
        assert (await ended("thumbnails", "thumbnail", path="a.png"))["result"] == "a.small.png"
        busy = await api.enqueue("reports", {"tenant": "busy", "month": day}, type="monthly_report")
        await api.until(busy["id"], "scheduled", last_error="its data is being imported")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


HUNGRY = """
import asyncio, logging, reports
from sluice_client.serving import worker

@reports.sluice.task(queue="hungry")
async def grow() -> int:
    grow.memory = b"x" * 200_000_000
    await asyncio.sleep(0.2)
    return len(grow.memory)

worker.MEMORY_SECONDS = 0.05
asyncio.run(reports.sluice.worker(queues=["hungry"], memory_limit="150MB").run())
"""


async def test_a_worker_that_has_grown_too_large_ends_with_code_75(api: Api, tmp_path: Path) -> None:
    written("python-workers.md", tmp_path)
    (tmp_path / "hungry.py").write_text(HUNGRY)
    good(await api.put("/queues/hungry", json={}), 201)
    task = await api.enqueue("hungry", {}, type="grow")
    async with program(tmp_path, api, "hungry.py") as process:
        assert await asyncio.wait_for(process.wait(), 60) == 75
    assert (await api.task(task["id"]))["result"] == 200_000_000


async def test_a_second_signal_gives_back_at_once(api: Api, tmp_path: Path) -> None:
    """Also what runs in a thread, which nothing can end: the process does not wait for it."""
    written("python-workers.md", tmp_path)
    (tmp_path / "slow.py").write_text(
        "import time, asyncio, reports\n"
        "@reports.sluice.task(queue='slow')\ndef sleep() -> None:\n    time.sleep(600)\n"
        "@reports.sluice.task(queue='slow')\nasync def wait() -> None:\n    await asyncio.sleep(600)\n"
        "asyncio.run(reports.sluice.worker(queues=['slow'], drain_seconds=600).run())\n"
    )
    good(await api.put("/queues/slow", json={}), 201)
    tasks = [(await api.enqueue("slow", {}, type=kind))["id"] for kind in ("sleep", "wait")]
    async with program(tmp_path, api, "slow.py") as process:
        for task in tasks:
            await api.until(task, "running")
        await asyncio.sleep(0.2)  # until both have begun
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)
    for task in tasks:
        await api.until(task, "ready", attempt=0)


async def test_the_shop_of_the_guide_signs_up_and_welcomes(api: Api, tmp_path: Path) -> None:
    written("python-fastapi.md", tmp_path)
    [port] = free_ports(1)
    secrets = f"{new_secret()} {new_secret()}"
    serve = ("-m", "uvicorn", "shop:app", "--port", str(port))
    async with program(tmp_path, api, *serve, WEBHOOK_SECRETS=secrets):
        url = f"http://127.0.0.1:{port}"
        async with program(tmp_path, api, "setup.py", url, WEBHOOK_SECRETS=secrets) as setup:
            assert await setup.wait() == 0
        await listens(port)
        reply = await api.client.post(f"{url}/signup?email=ada@example.com")
        task = await api.ended(good(reply, 202)["task"])
        assert task["result"].startswith("welcome, ada@example.com, in attempt ")


async def test_flask_and_django_of_the_guides_run_tasks(api: Api, tmp_path: Path) -> None:
    secret = new_secret()
    flask, django = tmp_path / "flask", tmp_path / "django"
    for folder, page, application in (
        (flask, "python-fastapi.md", "from flask_shop import app as application"),
        (django, "python-django.md", DJANGO),
    ):
        folder.mkdir()
        written(page, folder)
        (folder / "serve.py").write_text(SERVE_WSGI.replace("{application}", application))
    ports = free_ports(2)
    async with (
        program(flask, api, "serve.py", str(ports[0]), WEBHOOK_SECRETS=secret),
        program(django, api, "serve.py", str(ports[1]), WEBHOOK_SECRETS=secret),
    ):
        for port, result in zip(ports, ("welcome, ada@example.com", 1), strict=True):
            await listens(port)
            handler = await api.handler(f"http://127.0.0.1:{port}/tasks/", secret=secret)
            queue = await api.queue(handler, retry=AT_ONCE)
            task = await api.enqueue(queue, {"email": "ada@example.com"}, type="send_welcome")
            assert (await api.ended(task["id"]))["result"] == result


async def listens(port: int) -> None:
    async def there() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await poll(there, 60)


@pytest.fixture
def api(replica: Replica) -> Api:
    """A service without what other tests have defined."""
    return Api(replica.client, replica.url)
