"""Sources: their definitions, the room that receivers share, and what they have counted."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, func, insert, null, select, update

from app.domain.confinement import like_patterns
from app.domain.sources import (
    NO_SECRETS,
    Counts,
    SourceDefinition,
    SourceSecrets,
    SourceState,
    SourceView,
    source_etag,
    source_to_dict,
)
from app.store import queue_names
from app.store.callbacks import Called
from app.store.db import Reader
from app.store.enqueues import Entry, Receipt, despite_collisions
from app.store.replicas import ALIVE_SECONDS
from app.store.statements import Query, bound, call, sql
from app.store.tables import queues, sources, tenants
from app.store.vault import Vault, VaultError

MEASURE_SECONDS = 15.0
"""How often one of the replicas asks a source how much waits there."""

_NOW = func.clock_timestamp()
_THIS = sources.c.id == bindparam("source_id")
_OF_TENANT = sources.c.tenant_id == bindparam("tenant_id")
_NAMED = sources.c.name == bindparam("name")
_BY_NAME = sources.c.name.collate("C")
_WITH_NAMES = sources.join(queues, queues.c.id == sources.c.queue_id).join(tenants, tenants.c.id == sources.c.tenant_id)


def _shown(*conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(sources, queues.c.name.label("queue"), tenants.c.name.label("tenant"))
        .select_from(_WITH_NAMES)
        .where(*conditions)
    )


def _page(*conditions: ColumnElement[bool]) -> Query:
    page = _shown(_OF_TENANT, bindparam("after") < _BY_NAME, *conditions)
    return Query(page.order_by(_BY_NAME).limit(bindparam("most")))


_FIND = Query(_shown(_OF_TENANT, _NAMED))
_PAGE = _page()
_PAGE_WITHIN = _page(queue_names.WITHIN)
_FEEDING = Query(_shown(_OF_TENANT, queues.c.name == bindparam("queue")).order_by(_BY_NAME).limit(bindparam("most")))
_LOCK = Query(select(sources.c.id).where(_OF_TENANT, _NAMED).with_for_update())
_INSERT = Query(
    insert(sources)
    .values(sealed=b"", **bound("tenant_id", "name", "queue_id", "definition", "etag", "owner"))
    .returning(sources.c.id)
)
_REPLACE = Query(
    update(sources)
    .where(_THIS)
    .values(version=sources.c.version + 1, updated_at=_NOW, **bound("queue_id", "definition", "sealed", "etag"))
)
_SEAL = Query(update(sources).where(_THIS).values(**bound("sealed")))
_SET_OWNER = Query(update(sources).where(_THIS).values(**bound("owner")))
_PAUSE = Query(update(sources).where(_THIS).values(version=sources.c.version + 1, paused=True, paused_at=_NOW))
_RESUME = Query(update(sources).where(_THIS).values(version=sources.c.version + 1, paused=False, paused_at=null()))
_RUNNING = Query(select(sources.c.id, sources.c.version).where(sources.c.paused.is_(False)).order_by(sources.c.id))
_BY_ID = Query(_shown(_THIS))

_ADD_STATE = sql("add_source_state")
_STATES = sql("show_source_states")
_HEALTH = sql("show_source_health")
_REMOVE_STATE = sql("remove_source_state")
_REMOVE = sql("remove_source")
_LEAVE = sql("remove_source_receiver")
_PRUNE = sql("prune_source_receivers")
_WRITE_DEPTH = sql("write_source_depth")
_TAKE_ROOM = call("take_source_room_v1", 12)
_ENQUEUE_DEAD = call("enqueue_dead_v1", 3)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source as it is stored."""

    id: int
    tenant_id: int
    tenant: str
    queue_id: int
    version: int
    etag: str
    view: SourceView


@dataclass(frozen=True, slots=True)
class SourceHealth:
    tenant: str
    name: str
    paused: bool
    lag: int | None
    oldest_age_seconds: float | None
    last_error: str | None
    failing_seconds: float | None
    """How long its calls have failed; None: the last one succeeded."""
    changed_seconds: float
    """How long it has been as it is."""
    receivers: int
    """How many replicas receive from it."""


class Round(NamedTuple):
    """What a receiver has done since its last round."""

    tasks: Sequence[str] = ()
    """Ids of tasks that it created, or found."""
    counts: Counts = Counts()
    in_flight: int = 0
    error: str | None = None
    worked: bool = False
    """Something was received or enqueued, before it failed."""


class Room(NamedTuple):
    messages: int
    """How many may be received."""
    measure: bool
    """It is this replica's turn to measure."""


class DeadReceipt(Receipt):
    callbacks: Called | None = None


_DEAD_RECEIPT = msgspec.json.Decoder(DeadReceipt)


async def find(reader: Reader, vault: Vault, tenant_id: int, name: str) -> SourceRow | None:
    """Return a source without its state."""
    row = await _FIND.fetchrow(reader, tenant_id=tenant_id, name=name)
    return None if row is None else _row(vault, row)


async def find_by_id(reader: Reader, vault: Vault, source_id: int) -> SourceRow | None:
    row = await _BY_ID.fetchrow(reader, source_id=source_id)
    return None if row is None else _row(vault, row)


async def list_page(
    reader: Reader, vault: Vault, tenant_id: int, after: str | None, most: int, within: Sequence[str] | None = None
) -> list[SourceRow]:
    """Return up to `most` sources by name, after the name `after`, without their states; with `within`, those on queues whose
    names match one of the patterns."""
    page = {"tenant_id": tenant_id, "after": after or "", "most": most}
    if within is None:
        rows = await _PAGE.fetch(reader, **page)
    else:
        rows = await _PAGE_WITHIN.fetch(reader, **page, patterns=like_patterns(within))
    return [_row(vault, row) for row in rows]


async def feeding(reader: Reader, vault: Vault, tenant_id: int, queue: str, most: int) -> list[SourceRow]:
    """Return up to `most` sources of a queue by name, without their states."""
    return [_row(vault, row) for row in await _FEEDING.fetch(reader, tenant_id=tenant_id, queue=queue, most=most)]


async def states(reader: Reader, ids: Sequence[int]) -> dict[int, SourceState]:
    rows = [dict(row.items()) for row in await reader.fetch(_STATES, list(ids), ALIVE_SECONDS)]
    return {row.pop("source_id"): _state(row) for row in rows}


def _state(row: dict[str, Any]) -> SourceState:
    counts = Counts(**{name: row.pop(name) for name in Counts._fields})
    return SourceState(counts=counts, **row | {"replicas": tuple(row["replicas"])})


async def lock(connection: Reader, tenant_id: int, name: str) -> int | None:
    """Lock a source until the transaction ends. Read it in a later statement."""
    source_id: int | None = await _LOCK.fetchval(connection, tenant_id=tenant_id, name=name)
    return source_id


async def insert_new(
    connection: Reader,
    vault: Vault,
    tenant_id: int,
    name: str,
    queue_id: int,
    definition: SourceDefinition,
    owner: str | None,
) -> None:
    """Add a source. Its tenant's DEFINITIONS are locked, so nobody else adds one of this name."""
    source_id: int = await _INSERT.fetchval(
        connection, tenant_id=tenant_id, name=name, owner=owner, **_columns(vault, queue_id, definition)
    )
    await _SEAL.fetch(connection, source_id=source_id, sealed=_sealed(vault, source_id, definition))
    await connection.fetch(_ADD_STATE, source_id)


async def replace(
    connection: Reader, vault: Vault, source_id: int, queue_id: int, definition: SourceDefinition
) -> None:
    sealed = _sealed(vault, source_id, definition)
    await _REPLACE.fetch(connection, source_id=source_id, sealed=sealed, **_columns(vault, queue_id, definition))


async def set_owner(connection: Reader, source_id: int, owner: str) -> None:
    await _SET_OWNER.fetch(connection, source_id=source_id, owner=owner)


async def set_paused(connection: Reader, source_id: int, *, paused: bool) -> None:
    await (_PAUSE if paused else _RESUME).fetch(connection, source_id=source_id)


async def remove(connection: Reader, source_id: int) -> None:
    """Remove a source, which is locked, with what its receivers have written. Their state goes first, as they lock it first."""
    await connection.fetch(_REMOVE_STATE, source_id)
    await connection.fetch(_REMOVE, source_id)


async def running(db: Reader) -> dict[int, int]:
    """Return the version of each source that is not paused, of all tenants."""
    return {row["id"]: row["version"] for row in await _RUNNING.fetch(db)}


async def health(db: Reader, limit: int, tenant_id: int | None = None) -> list[SourceHealth]:
    """Return up to `limit` sources, by name, of a tenant or of all."""
    rows = await db.fetch(_HEALTH, ALIVE_SECONDS, limit, tenant_id)
    return [SourceHealth(**row) for row in rows]


async def take_room(db: Reader, source: SourceRow, replica_id: str, most: int, done: Round) -> Room | None:
    """Write what was done and return the room to go on, at most `most`; None if the source must not be received from any longer."""
    rows = await db.fetch(
        _TAKE_ROOM,
        source.id,
        source.version,
        replica_id,
        most,
        source.view.definition.max_outstanding,
        list(done.tasks),
        list(done.counts),
        done.in_flight,
        done.error,
        done.worked,
        ALIVE_SECONDS,
        MEASURE_SECONDS,
    )
    return Room(rows[0]["room"], rows[0]["measure"]) if rows else None


async def write_depth(db: Reader, source_id: int, lag: int | None, oldest_age_seconds: float | None) -> None:
    """Write how much waits at a source; None: it does not say."""
    await db.fetch(_WRITE_DEPTH, source_id, lag, oldest_age_seconds)


async def leave(db: Reader, source_id: int, replica_id: str) -> None:
    """Give back what room the replica still has."""
    await db.fetch(_LEAVE, source_id, replica_id)


async def prune(db: Reader) -> None:
    """Remove what replicas have left that did not stop cleanly."""
    await db.fetch(_PRUNE)


async def enqueue_dead(db: Reader, entries: Sequence[Entry], errors: Sequence[str]) -> DeadReceipt:
    """Insert tasks that are dead from the start, each with what is wrong with it; receipts are as those of `enqueues.enqueue`.

    Raises KeysHeld, Unavailable.
    """
    group_id = str(uuid.uuid4())
    receipt: str = await despite_collisions(lambda: db.fetchval(_ENQUEUE_DEAD, group_id, entries, errors))
    return _DEAD_RECEIPT.decode(receipt)


def _columns(vault: Vault, queue_id: int, definition: SourceDefinition) -> dict[str, Any]:
    return {
        "queue_id": queue_id,
        "definition": msgspec.json.encode(source_to_dict(definition)).decode(),
        "etag": source_etag(definition, vault.fingerprint_key),
    }


def _sealed(vault: Vault, source_id: int, definition: SourceDefinition) -> bytes:
    return vault.seal(msgspec.json.encode(definition.secrets).decode(), f"source:{source_id}")


def _row(vault: Vault, row: Any) -> SourceRow:
    try:
        secrets = msgspec.json.decode(vault.open(row["sealed"], f"source:{row['id']}"), type=SourceSecrets)
        lost = False
    except VaultError:
        secrets, lost = NO_SECRETS, True
    definition = msgspec.json.decode(row["definition"], type=SourceDefinition)
    view = SourceView(
        name=row["name"],
        definition=definition.with_kept(secrets),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        paused=row["paused"],
        paused_at=row["paused_at"],
        secrets_lost=lost,
        owner=row["owner"],
    )
    return SourceRow(row["id"], row["tenant_id"], row["tenant"], row["queue_id"], row["version"], row["etag"], view)
