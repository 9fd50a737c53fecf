"""API keys: what one grants, and which keys a caller may issue."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.bodies import RULE
from app.domain.callers import SCOPES, Caller
from app.domain.confinement import MAX_PATTERNS, PATTERN, within
from app.domain.errors import FieldError, Refusal
from app.domain.instants import Instant, read_instant
from app.domain.names import Name
from app.domain.schedules.times import LATEST
from app.domain.texts import MAX_DESCRIPTION, Description, check_text

DEFAULT_OVERLAP_SECONDS = 86_400.0
MAX_OVERLAP_SECONDS = 90 * 86_400

Scope = Literal["read", "use", "manage", "operate"]
KeyKind = Literal["bearer", "aws"]
Kind = Annotated[
    KeyKind,
    Meta(
        description="`bearer`: a token for this API. `aws`: an access key with which SQS clients sign their requests."
    ),
]
QueuePattern = Annotated[
    str,
    Meta(
        pattern=PATTERN,
        extra={RULE: "expected a queue's name, in which * stands for any characters"},
        description="A queue's name, in which `*` stands for any characters.",
        examples=["mail", "billing-*"],
    ),
]


class KeyBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A key to create."""

    tenant: Annotated[
        Name | None,
        Meta(description="Whose key it is, the caller's by default. Another one needs scope operate; made if new."),
    ] = None
    kind: Kind = "bearer"
    scope: Annotated[Scope, Meta(description="Each scope includes those before it.")] = "manage"
    queues: Annotated[
        Annotated[list[QueuePattern], Meta(min_length=1, max_length=MAX_PATTERNS)] | None,
        Meta(description="Confines the key to these queues, and to the tasks, batches and schedules on them."),
    ] = None
    payloads: Annotated[
        bool,
        Meta(
            description="false: payloads, results, excerpts, progress and error texts are null, and no task is pulled."
        ),
    ] = True
    expires_at: Instant | None = None
    description: Description | None = None


class Grant(Struct, frozen=True):
    """What a key may do, until when, and how requests prove that they have it."""

    scope: str = "manage"
    queues: tuple[str, ...] | None = None
    payloads: bool = True
    expires_at: datetime | None = None
    description: str | None = None
    kind: KeyKind = "bearer"


class KeyView(Struct):
    """A key, without its secret."""

    id: Annotated[str, Meta(description="Of kind `aws`: the access key id.")]
    tenant: str
    kind: Kind
    scope: Scope
    queues: list[str] | None
    payloads: bool
    expires_at: Instant | None
    description: str | None
    created_at: Instant
    last_used_at: Annotated[Instant | None, Meta(description="To the minute.")]
    revoked_at: Instant | None


class KeyIssued(KeyView):
    """A key with its secret."""

    token: Annotated[
        str,
        Meta(
            description="Send it as `Authorization: Bearer …`; of kind `aws`, the secret access key. It is not shown again."
        ),
    ]
    access_key_id: Annotated[str | UnsetType, Meta(description="Only of kind `aws`: the key's id.")] = UNSET
    secret_access_key: Annotated[
        str | UnsetType, Meta(description="Only of kind `aws`: SQS clients sign with it. It is not shown again.")
    ] = UNSET


class RotateKeyBody(Struct, forbid_unknown_fields=True):
    overlap_seconds: Annotated[
        float, Meta(ge=0, le=MAX_OVERLAP_SECONDS, description="How long the present token is still accepted.")
    ] = DEFAULT_OVERLAP_SECONDS


def grant_of(body: KeyBody, errors: list[FieldError]) -> Grant:
    """Return what a body asks for. What cannot be stored is added to `errors`."""
    queues = None if body.queues is None else tuple(dict.fromkeys(body.queues))
    expires_at = read_instant(body.expires_at, "/expires_at", errors)
    if expires_at is not None and expires_at > LATEST:
        errors.append(FieldError("/expires_at", f"must not be after {LATEST.year}"))
    if body.description is not None:
        errors += check_text(body.description, "/description", MAX_DESCRIPTION, empty=True)
    return Grant(body.scope, queues, body.payloads, expires_at, body.description, body.kind)


def check_reach(caller: Caller, grant: Grant) -> None:
    """Check that a key reaches no further than the caller's own. Raises Refusal (forbidden)."""
    if SCOPES.index(grant.scope) > SCOPES.index(caller.scope):
        raise _beyond(f"scope {grant.scope}, and this key has scope {caller.scope}")
    if caller.queues is not None and (grant.queues is None or not within(grant.queues, caller.queues)):
        raise _beyond(f"queues beyond those of this key: {', '.join(caller.queues)}")
    if grant.payloads and not caller.payloads:
        raise _beyond("payloads, which are hidden from this key")


def check_issue(caller: Caller, grant: Grant) -> None:
    """Check that the caller may hand out a token for a key. Raises Refusal (forbidden)."""
    check_reach(caller, grant)
    if caller.expires_at is not None and (grant.expires_at is None or grant.expires_at > caller.expires_at):
        raise _beyond("a later end than that of this key; set expires_at")


def _beyond(what: str) -> Refusal:
    return Refusal("forbidden", f"the key would have {what}")


def issued(view: KeyView, secret: str) -> KeyIssued:
    made = KeyIssued(**structs.asdict(view), token=secret)
    if view.kind == "aws":
        made.access_key_id, made.secret_access_key = view.id, secret
    return made
