"""Responses with limits: named ones, their keys, the keys of queues, and a tenant's own."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.ids import Uuid
from app.domain.instants import Instant, format_instant, instant_text
from app.domain.limits import MAX_HOLDERS, KeyView, LimitView, Rate, Use
from app.domain.names import Name
from app.edge.pages import Owner
from app.store.tenants import TenantLimits

Tokens = Annotated[
    float | None,
    Meta(
        description="Units of the rate that could start at once; null without a rate, and over all keys of a keyed limit."
    ),
]


class HolderOut(Struct):
    task: Uuid
    queue: Name
    key: str | None
    started_at: Instant


class UseOut(Struct, kw_only=True):
    """What is taken of it at this instant."""

    holding: Annotated[int, Meta(description="Running tasks that take it.")]
    effective_max_concurrency: int | None
    tokens: Tokens
    next_at: Annotated[Instant | None, Meta(description="When the next unit can start; null: now.")]
    waiting_keys: Annotated[int, Meta(description="How many keys wait for it.")]
    holders: Annotated[
        list[HolderOut], Meta(description=f"Up to {MAX_HOLDERS} of the running tasks, the longest running first.")
    ]


class LimitOut(UseOut, kw_only=True):
    """A named limit."""

    name: Name
    max_concurrency: int | None
    rate: Rate | None
    keyed: bool
    description: str | None
    paused: bool
    paused_at: Instant | None
    overridden: Annotated[bool, Meta(description="Some key has values of its own.")]
    created_at: Instant
    updated_at: Instant
    owner: Owner = UNSET


class KeyOut(UseOut, kw_only=True):
    """One key of a limit."""

    key: str
    max_concurrency: int | None
    rate: Rate | None
    paused: bool
    paused_at: Instant | None
    overridden: Annotated[bool, Meta(description="It has values of its own.")]


class QueueKeyOut(KeyOut, kw_only=True):
    """One key of a queue."""

    weight: int
    waiting: Annotated[int, Meta(description="Its tasks that are scheduled or ready.")]


class TenantLimitsOut(Struct, kw_only=True):
    """The tenant's limits over all its queues."""

    max_concurrency: int | None
    rate: Rate | None
    granted_max_concurrency: Annotated[
        int | UnsetType,
        Meta(description="The operator's limit for this tenant, if any. The lower one applies."),
    ] = UNSET


class LimitsOut(TenantLimitsOut, kw_only=True):
    """The tenant's limits over all its queues, and a page of its named ones."""

    items: list[LimitOut]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last page.")]


class GrantOut(Struct):
    tenant: str
    max_concurrency: int | None


def own_limits(own: TenantLimits) -> dict[str, Any]:
    """Return the fields that show the tenant's limits over all its queues."""
    granted = own.granted_max_concurrency
    return {
        "max_concurrency": own.max_concurrency,
        "rate": own.rate,
        "granted_max_concurrency": UNSET if granted is None else granted,
    }


def limit_out(view: LimitView, use: Use) -> LimitOut:
    definition = view.definition
    return LimitOut(
        name=view.name,
        max_concurrency=definition.max_concurrency,
        rate=definition.rate,
        keyed=definition.keyed,
        description=definition.description,
        paused=view.paused_at is not None,
        paused_at=instant_text(view.paused_at),
        overridden=view.overridden,
        created_at=format_instant(view.created_at),
        updated_at=format_instant(view.updated_at),
        owner=UNSET if view.owner is None else view.owner,
        **_use(use),
    )


def key_out(view: KeyView, use: Use) -> KeyOut:
    return KeyOut(**_key(view, use))


def queue_key_out(view: KeyView, use: Use, waiting: int) -> QueueKeyOut:
    return QueueKeyOut(**_key(view, use), weight=view.weight, waiting=waiting)


def _key(view: KeyView, use: Use) -> dict[str, Any]:
    return {
        "key": view.key,
        "max_concurrency": view.max_concurrency,
        "rate": view.rate,
        "paused": view.paused_at is not None,
        "paused_at": instant_text(view.paused_at),
        "overridden": view.overridden,
        **_use(use),
    }


def _use(use: Use) -> dict[str, Any]:
    return {
        "holding": use.holding,
        "effective_max_concurrency": use.effective_max_concurrency,
        "tokens": use.tokens,
        "next_at": instant_text(use.next_at),
        "waiting_keys": use.waiting_keys,
        "holders": [HolderOut(one.task_id, one.queue, one.key, format_instant(one.started_at)) for one in use.holders],
    }
