"""The tables of definitions and of what is written seldom, for SQLAlchemy. The schema itself is made by the migrations;
a test holds the two together."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData(schema="sluice")

_NOW = text("clock_timestamp()")


def _instant(name: str, *, nullable: bool = False, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=_NOW if default else None)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _tenant() -> Column[int]:
    return Column("tenant_id", BigInteger, ForeignKey("sluice.tenants.id"), nullable=False)


tenants = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("max_concurrency", Integer),
    Column("granted_max_concurrency", Integer),
    _instant("created_at", default=True),
    UniqueConstraint("name", name="tenants_name_key"),
    CheckConstraint("max_concurrency > 0", name="tenants_max_concurrency"),
    CheckConstraint("granted_max_concurrency > 0", name="tenants_granted_max_concurrency"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("scope", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bootstrap", Boolean, nullable=False, server_default=text("false")),
    _instant("created_at", default=True),
    _instant("revoked_at", nullable=True),
    CheckConstraint("scope in ('use', 'manage', 'operate')", name="api_keys_scope"),
    Index(
        "api_keys_bootstrap_key", "bootstrap", unique=True, postgresql_where=text("bootstrap and revoked_at is null")
    ),
)

handlers = Table(
    "handlers",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("timeout_seconds", Double, nullable=False),
    Column("sealed_headers", LargeBinary, nullable=False),
    Column("max_concurrency", Integer),
    Column("fatal_statuses", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    Column("description", Text),
    Column("etag", Text, nullable=False),
    Column("owner", Text),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("sealed_previous_secret", LargeBinary),
    _instant("previous_secret_until", nullable=True),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    _instant("disabled_at", nullable=True),
    Column("disabled_reason", Text),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    _instant("deleted_at", nullable=True),
    CheckConstraint("max_concurrency > 0", name="handlers_max_concurrency"),
    Index("handlers_name_key", "tenant_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
)

queues = Table(
    "queues",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("handler_id", BigInteger, ForeignKey("sluice.handlers.id")),
    Column("max_concurrency", Integer),
    Column("max_depth", Integer),
    Column("timeout_seconds", Double),
    Column("retry", JSON, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("idempotency_seconds", Double, nullable=False),
    Column("payload_schema", Text),
    Column("succeeded_days", Double, nullable=False),
    Column("cancelled_days", Double, nullable=False),
    Column("dead_days", Double, nullable=False),
    Column("description", Text),
    Column("etag", Text, nullable=False),
    Column("owner", Text),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _instant("paused_at", nullable=True),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    _instant("deleted_at", nullable=True),
    CheckConstraint("max_concurrency > 0", name="queues_max_concurrency"),
    CheckConstraint("max_depth > 0", name="queues_max_depth"),
    Index("queues_name_key", "tenant_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
    Index("queues_handler", "handler_id"),
    Index("queues_by_tenant", "tenant_id", "name"),
)

lanes = Table(
    "lanes",
    metadata,
    Column("queue_id", BigInteger, primary_key=True, autoincrement=False),
    Column("handler_id", BigInteger, primary_key=True, autoincrement=False),
)

queue_minutes = Table(
    "queue_minutes",
    metadata,
    Column("queue_id", BigInteger, primary_key=True, autoincrement=False),
    Column("minute", DateTime(timezone=True), primary_key=True),
    *(
        Column(name, BigInteger, nullable=False, server_default=text("0"))
        for name in ("enqueued", "started", "succeeded", "dead", "cancelled")
    ),
    *(Column(name, ARRAY(BigInteger), nullable=False, server_default=text("'{}'")) for name in ("wait", "run")),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("version", Text, nullable=False),
    _instant("started_at"),
    _instant("seen_at"),
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    Column("deaf", Boolean, nullable=False, server_default=text("false")),
    Column("connections", Integer, nullable=False, server_default=text("0")),
    Column("connections_wanted", Integer, nullable=False, server_default=text("0")),
    Column("max_in_flight", Integer, nullable=False, server_default=text("0")),
    Column("in_flight", Integer, nullable=False, server_default=text("0")),
    Column("short_tenants", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    Column("short_queues", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
)
