"""The composition root: every role is `build` without some parts, and two replicas may run in one process."""

import asyncio
import gc
import os
import random
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg

from app.api.app import create_app
from app.compat.wires import WireServers, wires
from app.delivery.deliveries import Deliveries
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.callers import Caller
from app.domain.connections import MIN_CONNECTIONS, NoRoom, fit, split, tightest
from app.domain.ids import is_aws_key_id
from app.domain.keys import Grant, KeyIssued, KeyView
from app.domain.roles import RoleGrant
from app.edge.admission import MAX_CONNECTIONS, Admission
from app.edge.asgi import Edge
from app.edge.config import EdgeConfig
from app.edge.protocol import EdgeServerConfig
from app.edge.server import (
    LEAST_DESCRIPTORS,
    Descriptors,
    EdgeServer,
    bound,
    raise_descriptor_limit,
    share_out,
    url_of,
)
from app.embedded.postgres import EmbeddedPostgres, running_url
from app.engine.engine import Engine
from app.runtime.core import Core, build_core
from app.runtime.replica import Replica
from app.service import authentication, keys, roles, status
from app.settings import Settings, SettingsError
from app.sources.kinds import Kinds
from app.sources.redis_stream import RedisStreamKind
from app.sources.sqs import SqsKind
from app.store import examination, migrations, partitions, rehearsals, tenants, vault
from app.store.db import Database
from app.store.failures import Busy, Refused, Unavailable, Unsuitable
from app.store.keys import any_usable
from app.store.outage import Outage
from app.store.room import measured
from app.store.vault import Vault, VaultError, open_vault
from app.telemetry import events, logs
from app.telemetry.logs import get_logger
from app.telemetry.pushing import build_push
from app.telemetry.tracing import build_tracing, traces_endpoint
from app.ui import site
from app.version import VERSION

DATABASE_WAIT_SECONDS = 30.0
SWITCH_SECONDS = 0.001
GC_THRESHOLDS = (20_000, 20, 20)
"""New objects before the collector looks at the youngest; and how often it does so before it looks at the older ones."""
NO_KEYS_HINT = (
    "create one with `sluice keys create --tenant default --scope operate` on this database (no restart needed), "
    "or set SLUICE_BOOTSTRAP_KEY and restart"
)
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that the server does not close one just as a request arrives."""

log = get_logger(__name__)


@dataclass
class Sluice:
    """One replica: the core, the engine, and the edge."""

    settings: Settings
    core: Core
    engine: Engine
    url: str
    draining: bool = False
    started: bool = False
    wires: dict[str, str] = field(default_factory=dict)
    """Other wires by name, and where they listen."""

    def why_not_live(self) -> str | None:
        return self.engine.why_not_live()

    def why_not_ready(self) -> str | None:
        """Return why the replica should get no requests, or None. An unavailable database is no reason: it would take all replicas
        out of rotation at once, so the routes answer 503 themselves."""
        if self.draining:
            return "draining"
        if self.engine.outdated:
            return "a newer release has changed the schema; upgrade this replica"
        return None if self.started else "starting"

    async def status(self) -> dict[str, Any]:
        return await status.status(self.core)

    async def metrics(self) -> bytes:
        # in a thread, because many queues take a while to render
        return await asyncio.to_thread(self.core.metrics.render)


async def wait_for_database(dsn: str, direct_dsn: str | None = None, *, patient: bool = True) -> None:
    """Check the database and migrate it. If `patient`, wait a while for one that is still starting.

    Raises Unavailable, SchemaMismatch, and SettingsError if the settings cannot work.
    """
    until, outage = time.monotonic() + DATABASE_WAIT_SECONDS, Outage()
    while True:
        try:
            await _prepare(dsn, direct_dsn)
            outage.over()
            return
        except Unsuitable as error:
            raise SettingsError([f"{str(error)[:1].upper()}{str(error)[1:]}."]) from error
        except Refused as error:
            where = (
                "SLUICE_DATABASE_URL" if direct_dsn is None else "SLUICE_DATABASE_URL and SLUICE_DATABASE_DIRECT_URL"
            )
            raise SettingsError(
                [f"The database rejected the connection ({error}): check the user, password and database in {where}."]
            ) from error
        except Unavailable as error:
            if not patient:
                raise
            outage.met("migrate", str(error))
            if time.monotonic() > until:
                raise
            await asyncio.sleep(1.0)


async def _prepare(dsn: str, direct_dsn: str | None) -> None:
    given_as = "SLUICE_DATABASE_URL" if direct_dsn is None else "SLUICE_DATABASE_DIRECT_URL"
    await examination.examine_sessions(direct_dsn or dsn, given_as=given_as)
    if direct_dsn is not None:
        await examination.examine_pooler(dsn, direct_dsn)
    began = time.monotonic()
    if await migrations.migrate(direct_dsn or dsn):
        took = round(time.monotonic() - began, 3)
        events.emit(log, events.MIGRATED, from_revision=0, to_revision=migrations.SCHEMA_VERSION, seconds=took)
    await examination.examine_rights(dsn)


async def open_database(dsn: str, direct_dsn: str | None, wanted: int) -> Database:
    """Open a replica's connections, as many as the server has left; if those are too few, wait a while for others to be closed.

    Behind a transaction pooler, the pooler's own limits apply. Raises Unavailable, NoRoom.
    """
    if direct_dsn is not None:
        db = Database(dsn, direct_dsn, split(wanted))
        await db.open()
        return db
    until, said = time.monotonic() + DATABASE_WAIT_SECONDS, False
    while True:
        try:
            async with measured(dsn) as limits:
                db = Database(dsn, None, fit(wanted, limits))
                await db.open()
        except (NoRoom, Busy) as error:
            if time.monotonic() > until:
                raise
            if not said:
                events.emit(log, events.CONNECTIONS_SHORT, wanted=wanted, got=0, hint=str(error))
                said = True
            await asyncio.sleep(0.5 + random.random())
        else:
            if db.connections.total < wanted:
                hint = tightest(limits).words
                events.emit(log, events.CONNECTIONS_SHORT, wanted=wanted, got=db.connections.total, hint=hint)
            return db


async def build(settings: Settings, dsn: str, url: str, descriptors: Descriptors) -> Sluice:
    """Build a replica on a migrated database. `url` is where it listens."""
    replica_id = str(uuid.uuid4())
    replica = Replica(replica_id, f"{socket.gethostname()}-{replica_id[:8]}")
    db = await open_database(dsn, _direct(settings), settings.database_connections)
    egress = EgressPolicy(settings.egress)
    public_url = (settings.public_url or url).rstrip("/")
    transport = Transport(egress, max_idle=descriptors.idle_calls)
    core = build_core(
        db,
        vault=await _open_vault(db, settings),
        delivery=Deliveries(egress, transport),
        tracing=build_tracing(traces_endpoint(os.environ), version=VERSION, replica=replica.name),
        replica=replica,
        public_url=public_url,
        max_payload_bytes=settings.max_payload_bytes,
        schedule_grace_seconds=settings.schedule_grace_seconds,
        max_definitions=settings.max_definitions,
        audit_days=settings.audit_days,
        sources=Kinds({"redis_stream": RedisStreamKind(egress), "sqs": SqsKind(egress, transport)}),
    )
    engine = Engine(
        core,
        dispatching=settings.role != "api",
        capacity=descriptors.calls,
        lease_seconds=settings.lease_seconds,
        roles=settings.role,
        version=VERSION,
    )
    return Sluice(settings, core, engine, url)


def _edge(sluice: Sluice) -> EdgeConfig:
    settings, core = sluice.settings, sluice.core

    async def authenticate(token: str) -> Caller:
        return await authentication.authenticate(core, token)

    return EdgeConfig(
        operations=sluice,
        authenticate=authenticate,
        anonymous=_anonymous(core) if not settings.auth_required else None,
        max_payload_bytes=settings.max_payload_bytes,
        metrics_open=settings.metrics_open,
        public_url=core.public_url,
        version=VERSION,
        tracing=core.tracing.enabled,
        operations_only=settings.role == "engine",
        request_meter=core.metrics.request_meter,
    )


def _application(sluice: Sluice, edge: EdgeConfig) -> Edge:
    settings = sluice.settings
    served = settings.ui == "on" and not edge.operations_only
    return create_app(sluice.core, edge, pages=site.routes(sluice.core, edge, settings.ui_label) if served else ())


def _anonymous(core: Core) -> Callable[[], Any]:
    known: list[Caller] = []

    async def caller() -> Caller:
        if not known:
            known.append(Caller(await tenants.id_of(core.db, "default"), "default", "operate"))
        return known[0]

    return caller


@asynccontextmanager
async def running(settings: Settings, *, catch_signals: bool = False) -> AsyncIterator[tuple[Sluice, EdgeServer]]:
    """Run a whole replica, listening and dispatching; leaving the context drains it."""
    async with AsyncExitStack() as stack:
        descriptors = _share_out_descriptors(settings.max_in_flight)
        dsn = await _database(settings, stack)
        await wait_for_database(dsn, _direct(settings))
        opened = wires(sqs_port=None if settings.role == "engine" else settings.sqs_port)
        backlog = descriptors.backlog // (1 + len(opened))
        listener = stack.enter_context(bound(settings.host, settings.port, backlog))
        sockets = [stack.enter_context(bound(settings.host, wire.port, backlog)) for wire in opened]
        sluice = await build(settings, dsn, url_of(listener), descriptors)
        sluice.wires = {wire.name: url_of(socket) for wire, socket in zip(opened, sockets, strict=True)}
        logs.name_replica(sluice.core.replica.name)
        events.emit(log, events.REPLICA_STARTED, version=VERSION, role=settings.role, url=sluice.url)
        began = time.monotonic()
        stack.push_async_callback(sluice.core.db.close)
        stack.push_async_callback(sluice.core.delivery.aclose)
        stack.push_async_callback(sluice.core.sources.aclose)
        stack.push_async_callback(sluice.core.tracing.aclose)
        push = build_push(os.environ, sluice.core.metrics, version=VERSION, replica=sluice.core.replica.name)
        if push is not None:
            stack.push_async_callback(push.aclose)
        await _let_in(settings, sluice.core.db)
        edge = _edge(sluice)
        app = _application(sluice, edge)
        sluice.core.tracing.instrument(app.application)
        configure = partial(
            EdgeServerConfig,
            admission=Admission(max_connections=descriptors.connections),
            request_meter=sluice.core.metrics.request_meter,
            backlog=backlog,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        server = EdgeServer(configure(app), catch_signals=catch_signals)
        others = WireServers((configure(wire.build(sluice.core, edge)) for wire in opened), sockets)
        await sluice.engine.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="server")
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            await others.start()
            sluice.started = True
            events.emit(log, events.READY, url=sluice.url, replica=sluice.core.replica.name, wires=sluice.wires)
            yield sluice, server
        finally:
            logs.name_replica(sluice.core.replica.name)  # another may have started in this process in the meantime
            sluice.draining = True
            await sluice.engine.stop(settings.drain_grace_seconds, server.hurried)
            await sluice.core.enqueueing.drained()
            await sluice.core.schemas.close()  # requests waiting for an expensive check must not delay the shutdown
            server.stop()
            await others.stop(server.hurried)
            await serving
            events.emit(log, events.REPLICA_STOPPED, uptime_seconds=round(time.monotonic() - began, 3))


async def _let_in(settings: Settings, db: Database) -> None:
    """Install the bootstrap key, or log that no key exists."""
    if settings.bootstrap_key is not None:
        await _seed(db, settings.bootstrap_key.get_secret_value())
    elif settings.auth_required and not await any_usable(db):
        events.emit(log, events.NO_KEYS, hint=NO_KEYS_HINT)


def _share_out_descriptors(max_in_flight: int) -> Descriptors:
    """Divide the file descriptors. Raises SettingsError if the process may open too few."""
    found = share_out(raise_descriptor_limit(), max_in_flight)
    if found.limit < LEAST_DESCRIPTORS:
        raise SettingsError(
            [
                f"The process may open {found.limit} files, but at least {LEAST_DESCRIPTORS} are needed: raise `ulimit -Hn`."
            ]
        )
    if found.calls < max_in_flight or found.connections < MAX_CONNECTIONS:
        events.emit(
            log,
            events.DESCRIPTORS_SHORT,
            limit=found.limit,
            connections=found.connections,
            max_in_flight=found.calls,
        )
    return found


async def _seed(db: Database, token: str) -> None:
    try:
        in_force = await keys.seed_bootstrap(db, token)
    except ValueError as error:
        raise SettingsError([f"SLUICE_BOOTSTRAP_KEY: {error}"]) from None
    if not in_force:
        raise SettingsError(["SLUICE_BOOTSTRAP_KEY has been revoked: remove it, or set a new one."])


async def _open_vault(db: Database, settings: Settings) -> Vault:
    try:
        return await open_vault(db, settings.encryption_keys)
    except VaultError as error:
        raise SettingsError([str(error)]) from error


async def _database(settings: Settings, stack: AsyncExitStack) -> str:
    """Return the address of the configured database, or of the embedded one, which stops with the stack."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    postgres = EmbeddedPostgres(settings.data_dir)
    began = time.monotonic()
    dsn = await postgres.start()
    stack.push_async_callback(_stop, postgres)
    supervisor = asyncio.create_task(postgres.supervise(), name="postgres")

    async def end() -> None:
        supervisor.cancel()
        with suppress(asyncio.CancelledError):
            await supervisor

    stack.push_async_callback(end)
    took = round(time.monotonic() - began, 3)
    events.emit(log, events.DATABASE_STARTED, data_dir=str(settings.data_dir), version="embedded", seconds=took)
    return dsn


async def _stop(postgres: EmbeddedPostgres) -> None:
    began = time.monotonic()
    await postgres.stop()
    events.emit(log, events.DATABASE_STOPPED, seconds=round(time.monotonic() - began, 3))


def _direct(settings: Settings) -> str | None:
    """Return the direct address beside a transaction pooler, if configured."""
    return None if settings.database_direct_url is None else settings.database_direct_url.get_secret_value()


def _running_here(settings: Settings) -> str | None:
    """Return the address of the embedded Postgres that another `sluice up` runs in the data directory, if any."""
    return None if settings.database_url is not None else running_url(settings.data_dir)


async def serve(settings: Settings) -> int:
    """Run until a signal ends it; return the exit code."""
    logs.configure(settings.log_level)
    async with running(settings, catch_signals=True) as (sluice, server):
        await _rehearse(sluice.core.db)
        _settle_down()
        await server.draining.wait()
    return 0


async def _rehearse(db: Database) -> None:
    """Prepare the connections. What fails here fails again, and is reported, when it is needed."""
    with suppress(Unavailable, asyncpg.PostgresError):
        await rehearsals.rehearse(db)


def _settle_down() -> None:
    """Tune a process that has started to serve.

    Objects that exist now live for good, so they are excluded from garbage collection: with them, each full collection blocks the
    event loop for a tenth of a second, and large bodies trigger one after another. Almost all others end by their reference counts,
    so the collector looks for cycles among many at a time. Computing threads yield to the loop sooner than after the default 5
    milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)


async def migrate(settings: Settings) -> None:
    """Migrate the schema, and drop expired partitions, which replicas with a lesser database role cannot."""
    async with database(settings, patient=True) as db:
        await partitions.ensure_ahead(db)
        await partitions.drop_expired(db, audit_days=settings.audit_days)


@asynccontextmanager
async def database(settings: Settings, *, patient: bool = False) -> AsyncIterator[Database]:
    """Open the migrated database without a service, for commands. They are interactive, so by default they do not wait."""
    async with AsyncExitStack() as stack:
        dsn = _running_here(settings) or await _database(settings, stack)
        await wait_for_database(dsn, _direct(settings), patient=patient)
        db = Database(dsn, _direct(settings), split(MIN_CONNECTIONS))
        await db.open(hold=False)
        stack.push_async_callback(db.close)
        yield db


async def create_key(settings: Settings, tenant: str, grant: Grant) -> KeyIssued:
    async with database(settings) as db:
        vault = await _open_vault(db, settings) if grant.kind == "aws" else None
        return await keys.create(db, tenant, grant, vault)


async def list_keys(settings: Settings) -> list[KeyView]:
    async with database(settings) as db:
        return await keys.list_keys(db)


async def rotate_key(settings: Settings, key_id: str, overlap_seconds: float) -> KeyIssued:
    async with database(settings) as db:
        vault = await _open_vault(db, settings) if is_aws_key_id(key_id) else None
        return await keys.rotate(db, key_id, overlap_seconds, vault)


async def rewrap(settings: Settings) -> str:
    """Encrypt the data key with the first encryption key; return that key's fingerprint. Raises SettingsError."""
    async with database(settings) as db:
        try:
            return await vault.rewrap(db, settings.encryption_keys)
        except VaultError as error:
            raise SettingsError([str(error)]) from error


async def revoke_key(settings: Settings, key_id: str) -> bool:
    """Revoke a key; return once no replica accepts it any longer."""
    async with database(settings) as db:
        return await keys.revoke(db, key_id)


async def grant(settings: Settings, role: str, tenant: str, queues: Sequence[str] | None) -> RoleGrant:
    """Let a role of the database call sluice.enqueue."""
    async with database(settings) as db:
        return await roles.grant(db, role, tenant, queues)


async def list_roles(settings: Settings) -> list[RoleGrant]:
    async with database(settings) as db:
        return await roles.list_roles(db)


async def revoke_role(settings: Settings, role: str) -> bool:
    async with database(settings) as db:
        return await roles.revoke(db, role)
