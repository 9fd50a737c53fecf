"""The tables of definitions, for SQLAlchemy Core. Migrations create the schema; a test compares the two."""

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
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import UserDefinedType

metadata = MetaData(schema="sluice")

_NOW = text("clock_timestamp()")


def _instant(name: str, *, nullable: bool = False, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=_NOW if default else None)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _tenant() -> Column[int]:
    return Column("tenant_id", BigInteger, ForeignKey("sluice.tenants.id"), nullable=False)


class _Xid8(UserDefinedType[str]):
    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def _transaction() -> Column[str]:
    return Column("transaction", _Xid8(), primary_key=True, autoincrement=False, server_default=text("'0'"))


tenants = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("max_concurrency", Integer),
    Column("granted_max_concurrency", Integer),
    Column("flows", Boolean, nullable=False, server_default=text("false")),
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
    Column("queues", ARRAY(Text)),
    Column("payloads", Boolean, nullable=False, server_default=text("true")),
    Column("description", Text),
    Column("kind", Text, nullable=False, server_default=text("'bearer'")),
    Column("digest", LargeBinary, nullable=False),
    Column("previous_digest", LargeBinary),
    Column("sealed_secret", LargeBinary),
    Column("previous_sealed_secret", LargeBinary),
    _instant("previous_until", nullable=True),
    Column("bootstrap", Boolean, nullable=False, server_default=text("false")),
    _instant("created_at", default=True),
    _instant("expires_at", nullable=True),
    _instant("last_used_at", nullable=True),
    _instant("revoked_at", nullable=True),
    CheckConstraint("scope in ('read', 'use', 'manage', 'operate')", name="api_keys_scope"),
    CheckConstraint("cardinality(queues) > 0", name="api_keys_queues"),
    CheckConstraint("kind in ('bearer', 'aws')", name="api_keys_kind"),
    CheckConstraint("(kind = 'aws') = (sealed_secret is not null)", name="api_keys_secret"),
    Index(
        "api_keys_bootstrap_key", "bootstrap", unique=True, postgresql_where=text("bootstrap and revoked_at is null")
    ),
)

grants = Table(
    "grants",
    metadata,
    Column("role", Text, primary_key=True),
    _tenant(),
    Column("queues", ARRAY(Text)),
    _instant("created_at", default=True),
    CheckConstraint("cardinality(queues) > 0", name="grants_queues"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("sluice.api_keys.id"), nullable=False),
    Column("key_digest", LargeBinary, nullable=False),
    _instant("created_at", default=True),
    _instant("expires_at"),
    Index("sessions_expiry", "expires_at"),
)

handlers = Table(
    "handlers",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'webhook'")),
    Column("url", Text, nullable=False),
    Column("address", JSON),
    Column("sealed_address", LargeBinary),
    Column("timeout_seconds", Double, nullable=False),
    Column("sealed_headers", LargeBinary, nullable=False),
    Column("max_concurrency", Integer),
    Column("fatal_statuses", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    Column("limits", JSONB, nullable=False, server_default=text("'[]'")),
    Column("flows", Boolean, nullable=False, server_default=text("false")),
    Column("breaker", JSON),
    Column("adaptive", JSON),
    Column("park_on_retry_after", Text, nullable=False, server_default=text("'task'")),
    Column("description", Text),
    Column("group_max_tasks", Integer),
    Column("group_wait_seconds", Double),
    Column("targets", Text, nullable=False, server_default=text("'own'")),
    Column("etag", Text, nullable=False),
    Column("owner", Text),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("sealed_previous_secret", LargeBinary),
    _instant("previous_secret_until", nullable=True),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    _instant("disabled_at", nullable=True),
    Column("disabled_reason", Text),
    _instant("parked_until", nullable=True),
    Column("effective_max_concurrency", Integer),
    Column("half_open", Boolean, nullable=False, server_default=text("false")),
    Column("period", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    _instant("deleted_at", nullable=True),
    CheckConstraint("max_concurrency > 0", name="handlers_max_concurrency"),
    CheckConstraint("kind in ('webhook', 'sqs', 'redis_stream')", name="handlers_kind"),
    CheckConstraint("targets in ('own', 'path', 'any')", name="handlers_targets"),
    CheckConstraint("effective_max_concurrency >= 0", name="handlers_effective_max_concurrency"),
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
    Column("callbacks", JSONB),
    Column("payload_schema", Text),
    Column("limits", JSONB, nullable=False, server_default=text("'[]'")),
    Column("flows", Boolean, nullable=False, server_default=text("false")),
    Column("succeeded_days", Double, nullable=False),
    Column("cancelled_days", Double, nullable=False),
    Column("dead_days", Double, nullable=False),
    Column("encrypt", Boolean, nullable=False, server_default=text("false")),
    Column("sqs", JSONB),
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
    _transaction(),
)

limits = Table(
    "limits",
    metadata,
    _id(),
    _tenant(),
    Column("kind", Text, nullable=False),
    Column("name", Text),
    Column("owner_id", BigInteger),
    Column("keyed", Boolean, nullable=False, server_default=text("false")),
    Column("max_concurrency", Integer),
    Column("rate_limit", Double),
    Column("rate_period_seconds", Double, nullable=False, server_default=text("1")),
    Column("rate_burst", Integer),
    Column("max_depth", Integer),
    Column("ordered", Boolean, nullable=False, server_default=text("false")),
    Column("required", Boolean, nullable=False, server_default=text("false")),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _instant("paused_at", nullable=True),
    Column("description", Text),
    Column("etag", Text, nullable=False, server_default=text("''")),
    Column("owner", Text),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    CheckConstraint("kind in ('named', 'queue_key', 'queue_rate', 'handler_rate', 'tenant_rate')", name="limits_kind"),
    CheckConstraint("(name is null) = (kind <> 'named')", name="limits_name"),
    CheckConstraint("(owner_id is null) = (kind = 'named')", name="limits_owner"),
    CheckConstraint("max_concurrency > 0", name="limits_max_concurrency"),
    CheckConstraint("rate_limit > 0", name="limits_rate_limit"),
    CheckConstraint("rate_period_seconds > 0", name="limits_rate_period"),
    CheckConstraint("rate_burst > 0", name="limits_rate_burst"),
    CheckConstraint("max_depth > 0", name="limits_max_depth"),
    Index("limits_name_key", "tenant_id", "name", unique=True, postgresql_where=text("name is not null")),
    Index("limits_owner_key", "owner_id", "kind", unique=True, postgresql_where=text("owner_id is not null")),
)

limit_keys = Table(
    "limit_keys",
    metadata,
    Column("limit_id", BigInteger, ForeignKey("sluice.limits.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("bucket_id", BigInteger, nullable=False),
    Column("max_concurrency", Integer),
    Column("rate_limit", Double),
    Column("rate_period_seconds", Double, nullable=False, server_default=text("1")),
    Column("rate_burst", Integer),
    Column("weight", Double, nullable=False, server_default=text("1")),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _instant("paused_at", nullable=True),
    _instant("updated_at", default=True),
    UniqueConstraint("bucket_id", name="limit_keys_bucket_key"),
    CheckConstraint("max_concurrency > 0", name="limit_keys_max_concurrency"),
    CheckConstraint("rate_limit > 0", name="limit_keys_rate_limit"),
    CheckConstraint("rate_period_seconds > 0", name="limit_keys_rate_period"),
    CheckConstraint("rate_burst > 0", name="limit_keys_rate_burst"),
    CheckConstraint("weight > 0", name="limit_keys_weight"),
)

callback_uses = Table(
    "callback_uses",
    metadata,
    Column("queue_id", BigInteger, primary_key=True, autoincrement=False),
    Column("by_queue_id", BigInteger, primary_key=True, autoincrement=False),
    _transaction(),
)

schedules = Table(
    "schedules",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("queue_id", BigInteger, ForeignKey("sluice.queues.id"), nullable=False),
    Column("handler_id", BigInteger, nullable=False, server_default=text("0")),
    Column("definition", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("options", JSONB),
    Column("max_attempts", Integer),
    Column("then_queue_id", BigInteger),
    Column("then_digest", LargeBinary),
    Column("then_payload", LargeBinary),
    Column("then_sealed_for", Text),
    Column("etag", Text, nullable=False),
    Column("owner", Text),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _instant("paused_at", nullable=True),
    Column("paused_reason", Text),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("seq", BigInteger, nullable=False, server_default=text("0")),
    _instant("next_nominal_at", nullable=True),
    _instant("look_at", nullable=True),
    Column("runs", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("missed", BigInteger, nullable=False, server_default=text("0")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    _instant("deleted_at", nullable=True),
    Index("schedules_name_key", "tenant_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
    Index("schedules_look", "tenant_id", "look_at", postgresql_where=text("look_at is not null")),
    Index("schedules_queue", "queue_id", postgresql_where=text("deleted_at is null")),
    Index("schedules_missed", "id", postgresql_where=text("missed > 0 and deleted_at is null")),
)

sources = Table(
    "sources",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("queue_id", BigInteger, ForeignKey("sluice.queues.id"), nullable=False),
    Column("definition", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("etag", Text, nullable=False),
    Column("owner", Text),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    _instant("paused_at", nullable=True),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _instant("created_at", default=True),
    _instant("updated_at", default=True),
    UniqueConstraint("tenant_id", "name", name="sources_name_key"),
    Index("sources_queue", "queue_id"),
)
