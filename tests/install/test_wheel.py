"""The wheel and the source archive: built as for a release, installed beside nothing but what is locked, and put to work."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.handlers import Handler
from tests.sluices import SluiceProcess, end, start_process

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

UV = Path(sys.executable).with_name("uv")
RECURSIVE = {"properties": {"a": {"$ref": "#"}}}
"""Not plainly cheap: checked in a process of its own."""

Start = Callable[..., Awaitable[SluiceProcess]]


def build(kind: str, source: Path, target: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, folder=source)
    (built,) = target.iterdir()
    return built


def run(*command: str | Path, folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and what is locked for running it."""
    bare = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", bare, folder=bare)
    into = ("pip", "install", "-q", "--python", bare / "bin" / "python")
    run(UV, *into, "--require-hashes", "-r", ROOT / "requirements" / "runtime.txt", folder=bare)
    run(UV, *into, "--no-deps", wheel, folder=bare)
    run(UV, "pip", "check", "-q", "--python", bare / "bin" / "python", folder=bare)
    return bare / "bin"


@pytest.fixture
async def start(programs: Path) -> AsyncIterator[Start]:
    started: list[SluiceProcess] = []

    async def start(folder: Path, **settings: str) -> SluiceProcess:
        environment = {"SLUICE_PORT": "0", "VIRTUAL_ENV": None, "PYTHONPATH": None, **settings}
        program = (programs / "sluice",)
        process = await start_process("up", environment=environment, program=program, folder=folder)
        started.append(process)
        return await process.ready(90)

    yield start
    for process in started:
        await end(process)


async def delivers(process: SluiceProcess, handler: Handler) -> None:
    client = process.client
    (await client.put("/handlers/hello", json={"url": handler.url})).raise_for_status()
    (await client.put("/queues/hello", json={"handler": "hello", "payload_schema": RECURSIVE})).raise_for_status()
    refused = await client.post("/queues/hello/tasks", json={"payload": {"a": {"a": 1}}} | {"nonsense": 1})
    assert refused.status_code == 422
    task = (await client.post("/queues/hello/tasks", json={"payload": {"a": {}}})).raise_for_status().json()
    await handler.received(1, 30, task=task["id"])
    ended = (await client.get(f"/tasks/{task['id']}?wait_seconds=30")).json()
    assert ended["state"] == "succeeded"


async def test_an_installed_wheel_runs_a_task_from_an_empty_directory(
    start: Start, handler: Handler, tmp_path: Path
) -> None:
    process = await start(tmp_path)
    await delivers(process, handler)
    assert os.listdir(tmp_path) == [".sluice"]
    assert await process.terminate() == 0


async def test_an_installed_wheel_is_not_confused_by_what_is_where_it_starts(
    start: Start, handler: Handler, tmp_path: Path, empty_database_url: str
) -> None:
    """A project with an `app`, migrations in `alembic` and modules named as those of the standard library."""
    for name in ("app/__init__.py", "alembic/env.py", "json.py", "msgspec.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('not this one')")
    process = await start(tmp_path, SLUICE_DATABASE_URL=empty_database_url)
    await delivers(process, handler)
    assert await process.terminate() == 0


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("sluice-*")
    (tmp_path / "wheel").mkdir()
    assert contents(build("wheel", source, tmp_path / "wheel")) == contents(wheel)


def test_the_wheel_has_its_licence_and_nothing_that_only_a_checkout_needs(wheel: Path) -> None:
    names = contents(wheel)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    metadata = next(text.decode() for name, text in names.items() if name.endswith(".dist-info/METADATA"))
    assert "\nLicense-Expression: Apache-2.0\n" in metadata and "\nAuthor: The Sluice authors\n" in metadata
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"app"}
    assert not {"app/cli/openapi.py", "app/cli/reference.py"} & set(names)
