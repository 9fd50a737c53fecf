"""What every test may ask for: a clean database, replicas as processes or in process, a scriptable handler."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest
import structlog
from hypothesis import settings as hypothesis_settings

from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.embedded.postgres import EmbeddedPostgres
from app.settings import LOOPBACK, Settings
from tests.databases import SERVER_VARIABLE, SharedServer, WorkerDatabase, create_database, drop_database
from tests.handlers import Handler
from tests.poolers import pgbouncer
from tests.sluices import Replica, SluiceProcess, end, replica_with, start_process
from tests.support import give_signals_back, pg_bin
from tests.wire.api import Api

if TYPE_CHECKING:
    from tests.redis_server import RedisServer
    from tests.sqs_server import SqsServer

SERVER = pytest.StashKey[SharedServer]()

# A bad example is a bad example on a busy machine too: none has a deadline. `--hypothesis-profile whole` looks longer.
hypothesis_settings.register_profile("quick", max_examples=20, deadline=None)
hypothesis_settings.register_profile("whole", max_examples=150, deadline=None)
hypothesis_settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """In the process that hands tests to workers: start the server they share. Settings of the shell do not count."""
    for name in [name for name in os.environ if name.startswith("SLUICE_") and not name.startswith("SLUICE_TEST_")]:
        del os.environ[name]
    # What a test does not configure is told without the values of all variables: drawing these takes seconds a traceback.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    # xdist registers what hands out tests only after this hook, and a worker is told of no distribution
    hands_out = config.getoption("dist") != "no" and not hasattr(config, "workerinput")
    if hands_out and not config.option.collectonly and SERVER_VARIABLE not in os.environ:
        server = SharedServer()
        os.environ[SERVER_VARIABLE] = server.start()
        config.stash[SERVER] = server
    if not hands_out:  # workers inherit what they are to ignore
        give_signals_back()
        # What tests start is not measured: a replica under coverage costs twice as much, and coverage of greenlets has been seen
        # to loop for good in a process that has threads. What it runs is measured in the tests' own processes too.
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    server = config.stash.get(SERVER, None)
    if server is not None:
        del os.environ[SERVER_VARIABLE]
        server.stop()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The server this run shares."""
    if SERVER_VARIABLE in os.environ:
        yield os.environ[SERVER_VARIABLE]
        return
    server = SharedServer()
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def worker_database(server_url: str) -> Iterator[WorkerDatabase]:
    database = WorkerDatabase(server_url, f"sluice_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
    yield database
    database.close()


@pytest.fixture
def database_url(worker_database: WorkerDatabase) -> str:
    """A migrated database without rows."""
    worker_database.reset()
    return worker_database.url


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database of its own in which nothing was ever made."""
    name = f"sluice_test_{uuid4().hex}"
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete(create_database(server_url, name))
    loop.run_until_complete(drop_database(server_url, name))
    loop.close()


@pytest.fixture
async def durable_postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server of the test's own that keeps what it acknowledged, to be killed."""
    postgres = EmbeddedPostgres(tmp_path / "postgres", bin_dir=pg_bin())
    await postgres.start()
    yield postgres
    await postgres.stop()


@pytest.fixture
async def start_pooler(database_url: str) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts a PgBouncer before the test's database, in the mode asked for, with further settings; answers its address.
    Asked for before the replicas that use it, it ends after them."""
    async with AsyncExitStack() as stack:

        async def start(mode: str, **settings: str) -> str:
            return await stack.enter_async_context(pgbouncer(database_url, mode, **settings))

        yield start


@pytest.fixture
async def start_sluice(database_url: str) -> AsyncIterator[Callable[..., Awaitable[SluiceProcess]]]:
    """Starts `sluice up [options]` as a process on a free port, with further settings by name; None removes one."""
    started: list[SluiceProcess] = []

    async def start(*options: str, ready: bool = True, **settings: str | None) -> SluiceProcess:
        environment = {"SLUICE_DATABASE_URL": database_url, "SLUICE_PORT": "0", **settings}
        process = await start_process("up", *options, environment=environment)
        started.append(process)
        return await process.ready() if ready else process

    yield start
    for process in started:
        await end(process)


@pytest.fixture
async def sluice(start_sluice: Callable[..., Awaitable[SluiceProcess]]) -> SluiceProcess:
    return await start_sluice()


@pytest.fixture
async def start_replica(database_url: str) -> AsyncIterator[Callable[..., Awaitable[Replica]]]:
    """Starts whole replicas in this process, each on a socket of its own; takes the names of settings."""
    async with AsyncExitStack() as stack:

        async def start(**settings: object) -> Replica:
            # with keys too, tests have their handlers on loopback
            given = {
                "database_url": database_url,
                "port": 0,
                "drain_grace_seconds": 1,
                "egress_allow": LOOPBACK,
                **settings,
            }
            return await stack.enter_async_context(replica_with(Settings.model_validate(given)))

        yield start


@pytest.fixture
async def replica(start_replica: Callable[..., Awaitable[Replica]]) -> Replica:
    return await start_replica()


@pytest.fixture
async def replicas(start_replica: Callable[..., Awaitable[Replica]]) -> list[Replica]:
    """Three on one database."""
    return [await start_replica() for _ in range(3)]


@pytest.fixture
async def start_handler() -> AsyncIterator[Callable[[], Awaitable[Handler]]]:
    async with AsyncExitStack() as stack:

        async def start() -> Handler:
            return await stack.enter_async_context(Handler().serving())

        yield start


@pytest.fixture
async def handler(start_handler: Callable[[], Awaitable[Handler]]) -> Handler:
    return await start_handler()


@pytest.fixture
async def start_redis(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Callable[..., Awaitable["RedisServer"]]]:
    """Starts redis-server on a free port, with further settings by name; tests that ask for it are marked `ci`."""
    from tests.redis_server import RedisServer  # its import takes 0.2 s

    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> "RedisServer":
            server = RedisServer(tmp_path_factory.mktemp("redis"), **settings)
            stack.push_async_callback(server.stop)
            return await server.start()

        yield start


@pytest.fixture
async def redis(start_redis: Callable[..., Awaitable["RedisServer"]]) -> "RedisServer":
    return await start_redis()


@pytest.fixture(scope="session")
def shared_sqs() -> Iterator["SqsServer"]:
    from tests.sqs_server import serving_sqs  # its imports take a second

    with serving_sqs() as server:
        yield server


@pytest.fixture
def sqs(shared_sqs: "SqsServer") -> "SqsServer":
    """An SQS server in this process. Queues have names of their own; tests that ask for it are marked `ci`."""
    shared_sqs.as_ever()
    return shared_sqs


@pytest.fixture
async def start_guarded(start_replica: Callable[..., Awaitable[Replica]]) -> Callable[..., Awaitable[Replica]]:
    """Starts replicas that ask for keys."""

    async def start(**settings: object) -> Replica:
        given = {"bootstrap_key": make_api_key().text, "egress_allow": "127.0.0.0/8", **settings}
        return await start_replica(**given)

    return start


@pytest.fixture
async def tenant() -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """The API of a replica for a tenant of this name, with a new key."""
    from app.service import keys  # tests that need no replica do not wait for all of its imports

    async with AsyncExitStack() as stack:

        async def api(replica: Replica, name: str, scope: str = "manage") -> Api:
            token = (await keys.create(replica.sluice.core.db, name, Grant(scope))).token
            headers = {"authorization": f"Bearer {token}"}
            client = httpx2.AsyncClient(
                base_url=replica.url, trust_env=False, verify=False, timeout=30, headers=headers
            )
            await stack.enter_async_context(client)
            return Api(client, replica.url)

        yield api
