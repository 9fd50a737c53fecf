"""The distributions: built as for a release, installed beside nothing but what is locked, and put to work."""

import asyncio
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.handlers import Handler
from tests.install.distributions import CLIENT, SERVICE, SOURCES, archive, contents, names, run, wheel
from tests.install.interpreters import UV, interpreter
from tests.install.new_user import PROGRAM as GREETING
from tests.install.new_user import walk
from tests.sluices import SluiceProcess, end, start_process
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

RECURSIVE = {"properties": {"a": {"$ref": "#"}}}
"""Not plainly cheap: checked in a process of its own."""
SERVICE_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CLIENT_PYTHONS = ("3.10", *SERVICE_PYTHONS)

Environment = Callable[[str], Path]
Start = Callable[..., Awaitable[SluiceProcess]]


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Makes an environment of this Python with both wheels and what is locked for running them; returns its programs' folder."""
    made: dict[str, Path] = {}

    def environment(version: str) -> Path:
        if version not in made:
            program, bare = interpreter(version), tmp_path_factory.mktemp("bare")
            run(UV, "venv", "-q", "--no-project", "--python", program, bare / "of", folder=bare)
            python = bare / "of" / "bin" / "python"
            into = ("pip", "install", "-q", "--python", python)
            run(UV, *into, "--require-hashes", "-r", ROOT / "requirements" / "runtime.txt", folder=bare)
            run(UV, *into, "--no-deps", wheel(dist, SERVICE), wheel(dist, CLIENT), folder=bare)
            run(UV, "pip", "check", "-q", "--python", python, folder=bare)
            made[version] = python.parent
        return made[version]

    return environment


@pytest.fixture
async def start(environment: Environment) -> AsyncIterator[Start]:
    started: list[SluiceProcess] = []

    async def start(folder: Path, python: str = "3.11", **settings: str) -> SluiceProcess:
        variables = {"SLUICE_PORT": "0", "VIRTUAL_ENV": None, "PYTHONPATH": None, **settings}
        program = (environment(python) / "sluice",)
        process = await start_process("up", environment=variables, program=program, folder=folder)
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
    assert "(/llms/guides/installing.md)" in (await client.get("/llms.txt")).text


@pytest.mark.parametrize("python", SERVICE_PYTHONS)
async def test_an_installed_wheel_runs_a_task_from_an_empty_directory(
    start: Start, handler: Handler, tmp_path: Path, python: str
) -> None:
    process = await start(tmp_path, python)
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


def test_the_command_for_agents_says_which_extra_it_needs(environment: Environment, tmp_path: Path) -> None:
    program = environment("3.11") / "sluice"
    ended = subprocess.run([program, "mcp"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "pip install 'sluice-queue[mcp]'" in ended.stderr


REDIS = "redis_stream needs redis-py, which this replica does not have: install sluice-queue[redis]"
SQS = {"kind": "sqs", "queue_url": "http://127.0.0.1:1/1/orders", "region": "us-east-1"}
GIVEN = {"access_key_id": "any", "secret_access_key": "any"}
STREAM = {"kind": "redis_stream", "url": "redis://127.0.0.1:1", "stream": "orders"}
FROM = {"queue": "orders"}


async def test_bridges_say_which_extra_they_need_and_all_else_works_without(
    start: Start, handler: Handler, tmp_path: Path
) -> None:
    process = await start(tmp_path)
    client = process.client
    (await client.put("/queues/orders", json={})).raise_for_status()
    for path, body, extra in (
        ("/handlers/orders", STREAM, "redis"),
        ("/sources/orders", {**STREAM, **FROM, "group": "sluice"}, "redis"),
        ("/handlers/orders", SQS, "aws"),
        ("/sources/orders", {**SQS, **FROM}, "aws"),
    ):
        refused = await client.put(path, json=body)
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (422, "bridge_unavailable"), problem
        assert f"sluice-queue[{extra}]" in problem["detail"]
    # with credentials in the definition, SQS needs no library
    (await client.put("/handlers/orders", json={**SQS, "credentials": GIVEN})).raise_for_status()
    (await client.put("/sources/orders", json={**SQS, **FROM, "credentials": GIVEN})).raise_for_status()
    assert "could not connect" in (await client.post("/handlers/orders/test")).json()["error"]
    await delivers(process, handler)
    assert await process.terminate() == 0


async def test_a_replica_without_an_extra_says_so_of_bridges_that_another_one_defined(
    start: Start, tmp_path: Path, empty_database_url: str
) -> None:
    """The other one is of the environment of the tests, which has both."""
    variables: dict[str, str | None] = {"SLUICE_PORT": "0", "SLUICE_DATABASE_URL": empty_database_url}
    other = await start_process("up", environment=variables, folder=tmp_path)
    try:
        client = (await other.ready(90)).client
        (await client.put("/queues/orders", json={})).raise_for_status()
        for name, body in (("redis", STREAM), ("aws", SQS)):
            (await client.put(f"/handlers/{name}", json=body)).raise_for_status()
        group = {**STREAM, **FROM, "group": "sluice"}
        (await client.put("/sources/redis", json=group)).raise_for_status()
    finally:
        await end(other)
    process = await start(tmp_path, SLUICE_DATABASE_URL=empty_database_url)
    errors = {name: (await process.client.post(f"/handlers/{name}/test")).json()["error"] for name in ("redis", "aws")}
    assert errors["redis"] == REDIS and "install sluice-queue[aws]" in errors["aws"]

    async def told() -> bool:
        return bool((await process.client.get("/sources/redis")).json()["last_error"] == REDIS)

    await poll(told, 30)


@pytest.fixture(scope="module")
async def service(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of an installed service that several clients use."""
    variables = {"SLUICE_PORT": "0", "VIRTUAL_ENV": None, "PYTHONPATH": None}
    program = (environment("3.11") / "sluice",)
    folder = tmp_path_factory.mktemp("service")
    process = await start_process("up", environment=variables, program=program, folder=folder)
    yield (await process.ready(90)).url
    await end(process)


@pytest.mark.parametrize("python", CLIENT_PYTHONS)
async def test_the_client_runs_a_typed_task_beside_nothing_but_httpx2(
    dist: Path, tmp_path: Path, service: str, python: str
) -> None:
    program = tmp_path / "of" / "bin" / "python"
    run(UV, "venv", "-q", "--no-project", "--python", interpreter(python), tmp_path / "of", folder=tmp_path)
    run(UV, "pip", "install", "-q", "--python", program, wheel(dist, CLIENT), folder=tmp_path)
    command = (program, "-W", "error", GREETING)
    said = await asyncio.to_thread(run, *command, folder=tmp_path, SLUICE_URL=service)
    assert said == "Hello, Ada! Hello, Ada!\n"
    everything = "import sluice_client; [getattr(sluice_client, name) for name in sluice_client.__all__]"
    run(program, "-W", "error", "-c", everything, folder=tmp_path)


def test_the_page_of_the_client_shows_that_program() -> None:
    (block,) = blocks(SOURCES[CLIENT] / "README.md", "python")
    assert GREETING.read_text().endswith(f'"""\n\n{block}')


def test_a_new_user_gets_from_pip_install_to_a_typed_task(dist: Path, tmp_path: Path) -> None:
    """With pip, in one environment; `python -m tests.install.new_user` prints the seconds of each step."""
    steps: list[str] = []
    result = walk(tmp_path, lambda step, seconds: steps.append(f"{seconds:.1f} s  {step}"), dist)
    print("\n".join(steps))
    assert result == "Hello, Ada! Hello, Ada!"
    assert len(steps) == 5


@pytest.mark.parametrize("name", SOURCES)
def test_the_source_archive_makes_the_wheel_that_the_checkout_makes(dist: Path, tmp_path: Path, name: str) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, folder=SOURCES[name])
    assert contents(wheel(dist, name)) == contents(wheel(tmp_path, name))


def test_an_index_accepts_what_is_built(dist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), folder=dist)


@pytest.mark.parametrize(("name", "package"), [(SERVICE, "app"), (CLIENT, "sluice_client")])
def test_a_wheel_has_its_licence_and_nothing_that_only_a_checkout_needs(dist: Path, name: str, package: str) -> None:
    files = contents(wheel(dist, name))
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)
    metadata = next(text.decode() for file, text in files.items() if file.endswith(".dist-info/METADATA"))
    assert "\nLicense-Expression: Apache-2.0\n" in metadata and "\nAuthor: The Sluice authors\n" in metadata
    assert {file.partition("/")[0] for file in files if ".dist-info/" not in file} == {package}
    assert not {"app/cli/openapi.py", "app/cli/reference.py"} & set(files)
    assert name != CLIENT or "sluice_client/py.typed" in files


def test_the_source_archives_hold_what_they_are_built_from_and_no_more(dist: Path) -> None:
    service, client = names(archive(dist, SERVICE)), names(archive(dist, CLIENT))
    assert {"LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md", "alembic/versions/baseline.sql"} <= service
    assert {"LICENSE", "README.md", "sluice_client/py.typed"} <= client
    assert not any(name.startswith(("sdk/", "tests/")) for name in service | client)


def test_the_two_are_released_together() -> None:
    """One version, and the service takes the client of its own series."""
    service, client = (tomllib.loads((source / "pyproject.toml").read_text())["project"] for source in SOURCES.values())
    assert service["version"] == client["version"]
    major, minor, _ = (int(part) for part in client["version"].split("."))
    assert f"sluice-client>={major}.{minor},<{major}.{minor + 1}" in service["dependencies"]
    assert (ROOT / "LICENSE").read_bytes() == (SOURCES[CLIENT] / "LICENSE").read_bytes()
