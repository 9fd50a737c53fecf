"""The bodies and responses of the API. Generated from openapi/openapi.json by `make openapi`."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

if sys.version_info >= (3, 11):
    from typing import NotRequired, TypedDict
else:
    from typing_extensions import NotRequired, TypedDict

Instant: TypeAlias = datetime | str
"""A date-time with a zone, or an RFC 3339 text."""

Reason: TypeAlias = Literal[
    "attempts_exhausted",
    "expired",
    "fatal_status",
    "followup_too_large",
    "invalid_message",
    "purged",
    "pushed_back_too_long",
    "requested",
    "stopped_by_handler",
    "stopped_by_worker",
    "superseded",
]

State: TypeAlias = Literal["cancelled", "dead", "ready", "running", "scheduled", "succeeded"]


class FilterBody(TypedDict):
    """Which tasks: the filters of `GET /tasks`, and `error`. At least one is needed."""

    queue: NotRequired[str | None]
    state: NotRequired[State | None]
    reason: NotRequired[Reason | None]
    type: NotRequired[str | None]
    tag: NotRequired[str | None]
    handler: NotRequired[str | None]
    correlation_id: NotRequired[str | None]
    schedule: NotRequired[str | None]
    batch: NotRequired[str | None]
    ended_from: NotRequired[Instant | None]
    ended_to: NotRequired[Instant | None]
    error: NotRequired[str | None]


class ActionBody(TypedDict):
    kind: Literal["cancel", "purge", "redrive", "reschedule", "retry", "set_priority"]
    filter: FilterBody
    run_at: NotRequired[Instant | None]
    """Of `reschedule`: when the tasks are to run."""
    priority: NotRequired[int | None]
    """Of `set_priority`."""
    rate_per_second: NotRequired[float | None]
    """Act on at most so many tasks per second."""
    dry_run: NotRequired[bool]
    """Only count the matching tasks, and show some."""
    reason: NotRequired[str | None]
    """Why, for whoever reads it later."""


class TargetBodyShown(TypedDict):
    """Where and how one task is delivered, as far as its handler's `targets` allows."""

    path: str | None
    """Appended to the handler's URL; it may have a query. Cannot be combined with `url`."""
    url: str | None
    """An absolute URL. Needs a handler with `targets` = `any`."""
    method: Literal["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
    """GET, HEAD, DELETE and OPTIONS send no body unless the payload is not null."""
    headers: dict[str, str] | None
    """Sent beside the task's `headers`, and instead of those of the same name."""


class CallbackShown(TypedDict):
    queue: str
    """Where the task is enqueued."""
    body: Literal["payload", "summary"]
    """`summary`: the payload says how the task ended. `payload`: the task's own payload and headers, as for a
    dead-letter queue."""
    type: str | None
    """The type of the task that is enqueued; null: with `payload` the type of the task, else none."""
    target: TargetBodyShown | None
    """Where and how to deliver it, as far as the queue's handler allows."""


class LeaseView(TypedDict):
    expires_at: str


class LimitUseShown(TypedDict):
    """A limit that a task takes, with every field."""

    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    key: str | None
    """Of a keyed limit: a key of its own. null and, in a queue or handler, "task": the key of the task."""
    cost: int
    """Units of the rate."""


class TaskTarget(TypedDict):
    """Where and how the task is delivered, as far as it says so itself."""

    path: NotRequired[str]
    url: NotRequired[str]
    method: Literal["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
    headers: NotRequired[dict[str, str]]


WaitingFor: TypeAlias = Literal[
    "behind",
    "breaker_open",
    "fair_share",
    "global_limit",
    "global_rate",
    "handler_disabled",
    "handler_limit",
    "handler_parked",
    "handler_rate",
    "key_limit",
    "key_paused",
    "key_rate",
    "limit",
    "limit_rate",
    "no_engine",
    "no_worker",
    "ordering",
    "queue_limit",
    "queue_paused",
    "queue_rate",
    "replicas_busy",
    "retry_backoff",
    "run_at",
    "worker",
]


class WaitingOn(TypedDict):
    limit: str | None
    """A named limit."""
    key: str | None
    until: str | None
    """When it is looked at again at the latest; null: when room comes."""


class TaskView(TypedDict):
    """A task."""

    id: str
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    handler: str | None
    type: str | None
    state: State
    reason: Reason | None
    priority: int
    payload: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep). Absent in lists without `include=payload`."""
    payload_base64: NotRequired[str]
    """Instead of `payload`, if it came as base64."""
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""
    content_type: str
    """What the payload is delivered as."""
    encrypted: NotRequired[Literal[True]]
    """Payload, result and excerpts are encrypted in the database."""
    content_lost: NotRequired[Literal[True]]
    """They cannot be decrypted, because they were changed there, or moved from another task."""
    headers: dict[str, str]
    tags: list[str]
    target: TaskTarget | None
    correlation_id: str | None
    idempotency_key: str | None
    unique_key: str | None
    created_at: str
    run_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None
    attempt: int
    max_attempts: int
    timeout_seconds: float | None
    last_error: str | None
    result: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    result_encoding: NotRequired[Literal["base64"]]
    result_truncated: bool
    progress: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    lease: LeaseView | None
    replica: str | None
    schedule: str | None
    scheduled_for: str | None
    batch: str | None
    parent: str | None
    key: str | None
    limits: list[LimitUseShown]
    """What it takes itself, beside what its queue and handler do."""
    callbacks: dict[str, CallbackShown | None] | None
    """The task's own, by state, which replace the queue's; null for a state: none is enqueued."""
    waiting_for: WaitingFor | None
    """Only for unfinished tasks."""
    waiting_on: WaitingOn | None
    """The limit, key and instant that `waiting_for` speaks of."""


class ActionPreview(TypedDict):
    """What an action would act on."""

    matched: int
    complete: bool
    """Whether all were counted; otherwise there are at least `matched`."""
    sample: list[TaskView]


class TaskProblem(TypedDict):
    task: str
    code: str
    detail: str


class ActionView(TypedDict):
    """An action, and how far it is."""

    id: str
    kind: Literal["cancel", "empty", "move", "purge", "redrive", "reschedule", "retry", "set_priority"]
    filter: dict[str, Any]
    """The conditions that were named."""
    run_at: str | None
    priority: int | None
    rate_per_second: float | None
    reason: str | None
    state: Literal["cancelled", "done", "running"]
    matched: int
    """Tasks that matched when it began; while they are being listed, those found until now."""
    done: int
    refused: int
    """Tasks for which the change is impossible, such as one that has ended meanwhile."""
    failed: int
    """Tasks that an internal error kept from being changed."""
    errors: list[TaskProblem]
    """Of the first tasks refused or failed."""
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""
    created_by: str | None
    """The id of the key; null without one."""
    created_at: str
    ended_at: str | None


class Adaptive(TypedDict):
    """How to find the number of concurrent calls that a service bears, between `min` and the handler's
    `max_concurrency`."""

    min: NotRequired[int]
    target_seconds: NotRequired[float | None]
    """The limit is lowered while the 95th percentile of the calls' durations is above this."""


class AdaptiveShown(TypedDict):
    """How to find the number of concurrent calls that a service bears, between `min` and the handler's
    `max_concurrency`."""

    min: int
    target_seconds: float | None
    """The limit is lowered while the 95th percentile of the calls' durations is above this."""


FieldChangeOut = TypedDict(
    "FieldChangeOut", {"field": str, "from": Any, "to": Any, "content_hidden": NotRequired[Literal[True]]}
)


class ChangeOut(TypedDict):
    kind: Literal["handler", "limits", "named_limit", "queue", "schedule", "source"]
    name: str | None
    """null for the limits."""
    action: Literal["create", "delete", "unchanged", "update"]
    changes: list[FieldChangeOut]


class AppliedOut(TypedDict):
    version: str
    """A strong ETag over the document and what it was compared with."""
    changes: list[ChangeOut]
    """In the order in which they are applied."""
    secrets: dict[str, str]
    """Signing secrets generated for new handlers; they are shown only once."""


class AwsCredentials(TypedDict):
    """An access key of AWS. Write-only."""

    access_key_id: str
    secret_access_key: str
    session_token: NotRequired[str | None]
    """Of temporary credentials."""


class Breaker(TypedDict):
    """When to stop calling a service that fails."""

    window_seconds: NotRequired[int]
    min_calls: NotRequired[int]
    """With fewer calls in the window it stays closed."""
    failure_percent: NotRequired[float]
    open_seconds: NotRequired[float]
    """Until the first probe."""
    open_max_seconds: NotRequired[float]
    """Each failed probe doubles the time, up to this."""


class Grouping(TypedDict):
    """Several tasks of one queue in one request."""

    max_tasks: int
    """The most tasks that one request carries."""
    wait_seconds: NotRequired[float]
    """How long a ready task may wait for others, while there are fewer than `max_tasks`."""


class LimitUse(TypedDict):
    """A limit that a task takes. It counts one for the concurrency and `cost` for the rate."""

    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    key: NotRequired[str | None]
    """Of a keyed limit: a key of its own. null and, in a queue or handler, "task": the key of the task."""
    cost: NotRequired[int]
    """Units of the rate."""


class Rate(TypedDict):
    """A token bucket. In any W seconds it admits at most burst + limit x W / period_seconds units, on all replicas
    together."""

    limit: float
    """Units per period; a task costs one unless it says more."""
    period_seconds: NotRequired[float]
    burst: NotRequired[int | None]
    """Units admitted at once after a pause; null: what 0.1 s brings, at least 1."""


class HandlerBody(TypedDict):
    """A handler definition as sent, with its secret, which reads never show."""

    url: NotRequired[str]
    """webhook: required; http or https, without user name, password or fragment. redis_stream: `redis://` or
    `rediss://`; write-only, and the one given before is kept if it is absent."""
    timeout_seconds: NotRequired[float]
    headers: NotRequired[Mapping[str, str]]
    """Sent with every delivery. Write-only."""
    max_concurrency: NotRequired[int | None]
    fatal_statuses: NotRequired[Sequence[int]]
    description: NotRequired[str | None]
    group: NotRequired[Grouping | None]
    """Deliver ready tasks together; null: each in a request of its own."""
    targets: NotRequired[Literal["any", "own", "path"]]
    """What a task's `target` may name: nothing (`own`), a path below the URL (`path`), or any URL (`any`)."""
    breaker: NotRequired[Breaker | None]
    """null: a failing service is called all the same."""
    adaptive: NotRequired[Adaptive | None]
    """null: max_concurrency is the limit. Otherwise it is required, and the most."""
    park_on_retry_after: NotRequired[Literal["handler", "key", "task"]]
    """What waits when an answer has a `Retry-After`: the task, all of its key, or the whole handler."""
    rate: NotRequired[Rate | None]
    """How many of its tasks start in a while."""
    limits: NotRequired[Sequence[str | LimitUse]]
    """What all tasks take: `"name"`, or an object where a key or cost is given."""
    kind: NotRequired[Literal["redis_stream", "sqs", "webhook"]]
    """How tasks are delivered; each kind has fields of its own."""
    queue_url: NotRequired[str | None]
    """sqs: required."""
    region: NotRequired[str | None]
    """sqs: required."""
    endpoint_url: NotRequired[str | None]
    """sqs: another server than the one that `queue_url` names."""
    credentials: NotRequired[AwsCredentials | None]
    """sqs: write-only. Absent: those given before are kept; null: those that the replicas find in the usual AWS
    chain, for which the key needs scope operate."""
    group_id_from: NotRequired[Literal["key"] | None]
    """sqs: where a MessageGroupId comes from: the task's `key`."""
    stream: NotRequired[str | None]
    """redis_stream: required."""
    maxlen: NotRequired[int | None]
    """redis_stream: about how many entries the stream keeps; null: all."""
    secret: NotRequired[str | None]
    """The signing secret, whsec_ and the base64 of 24 to 64 bytes; generated if absent."""


class LimitDefinition(TypedDict):
    """A named limit."""

    max_concurrency: NotRequired[int | None]
    rate: NotRequired[Rate | None]
    keyed: NotRequired[bool]
    """It holds for each key by itself. Cannot change while the limit is in use."""
    description: NotRequired[str | None]


class Limits(TypedDict):
    """The tenant's own limits."""

    max_concurrency: NotRequired[int | None]
    """null: no limit over all queues."""
    rate: NotRequired[Rate | None]
    """How many tasks of all queues start in a while; null: any number."""


class TargetBody(TypedDict):
    """Where and how one task is delivered, as far as its handler's `targets` allows."""

    path: NotRequired[str | None]
    """Appended to the handler's URL; it may have a query. Cannot be combined with `url`."""
    url: NotRequired[str | None]
    """An absolute URL. Needs a handler with `targets` = `any`."""
    method: NotRequired[Literal["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]]
    """GET, HEAD, DELETE and OPTIONS send no body unless the payload is not null."""
    headers: NotRequired[Mapping[str, str] | None]
    """Sent beside the task's `headers`, and instead of those of the same name."""


class Callback(TypedDict):
    queue: str
    """Where the task is enqueued."""
    body: NotRequired[Literal["payload", "summary"]]
    """`summary`: the payload says how the task ended. `payload`: the task's own payload and headers, as for a
    dead-letter queue."""
    type: NotRequired[str | None]
    """The type of the task that is enqueued; null: with `payload` the type of the task, else none."""
    target: NotRequired[TargetBody | None]
    """Where and how to deliver it, as far as the queue's handler allows."""


class Callbacks(TypedDict):
    """Of a queue."""

    succeeded: NotRequired[Callback | None]
    dead: NotRequired[Callback | None]
    cancelled: NotRequired[Callback | None]


class QueueKey(TypedDict):
    """What holds for each distinct key of a queue's tasks."""

    max_concurrency: NotRequired[int | None]
    rate: NotRequired[Rate | None]
    max_depth: NotRequired[int | None]
    """Exact limit on scheduled and ready tasks of one key."""
    ordered: NotRequired[bool]
    """The tasks of a key start one at a time, strictly in the order in which they were enqueued."""
    required: NotRequired[bool]
    """A task without a key is refused."""


class Retention(TypedDict):
    """How many days ended tasks stay readable."""

    succeeded_days: NotRequired[int]
    cancelled_days: NotRequired[int]
    dead_days: NotRequired[int]


class QueueBody(TypedDict):
    """A queue definition as sent: with a partial retry policy, and the schema as JSON."""

    handler: NotRequired[str | None]
    """The handler that its tasks are delivered to; null: a queue for pull workers."""
    max_concurrency: NotRequired[int | None]
    max_depth: NotRequired[int | None]
    """Exact limit on scheduled and ready tasks."""
    rate: NotRequired[Rate | None]
    """How many of its tasks start in a while."""
    key: NotRequired[QueueKey | None]
    """What holds for each distinct key of its tasks."""
    timeout_seconds: NotRequired[float | None]
    """null: the handler's."""
    idempotency_seconds: NotRequired[float]
    retention: NotRequired[Retention]
    callbacks: NotRequired[Callbacks]
    """What is enqueued when a task of this queue ends, by the state it ends in."""
    encrypt: NotRequired[bool]
    """Whether payload, result and excerpts of its new tasks are encrypted in the database."""
    description: NotRequired[str | None]
    retry: NotRequired[Mapping[str, Any]]
    """Partial: absent fields keep their defaults (in a task: the queue's values)."""
    payload_schema: NotRequired[Mapping[str, Any] | bool | None]
    """Payloads are validated against it when they are enqueued; null: anything is accepted."""
    limits: NotRequired[Sequence[str | LimitUse]]
    """What all tasks take: `"name"`, or an object where a key or cost is given."""


class CatchUp(TypedDict):
    """What happens to times that are found late."""

    window_seconds: NotRequired[float | None]
    """Times older than this are missed; null: however old."""
    mode: NotRequired[Literal["all", "latest", "none"]]
    """Which of the times that are found late run."""


class OnCompleteBody(TypedDict):
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    payload: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    type: NotRequired[str | None]


class ScheduleBody(TypedDict):
    """Exactly one of `cron`, `every_seconds` and `at`."""

    cron: NotRequired[str | None]
    """Five fields as Debian reads them, `@daily` …, or `every 15 minutes`."""
    every_seconds: NotRequired[float | None]
    phase_seconds: NotRequired[float]
    """Times are epoch + n x every + phase."""
    seconds: NotRequired[bool]
    """`cron` may have six fields, the first one seconds."""
    timezone: NotRequired[str]
    """An IANA zone."""
    type: NotRequired[str | None]
    priority: NotRequired[int]
    retry: NotRequired[Mapping[str, Any] | None]
    timeout_seconds: NotRequired[float | None]
    handler: NotRequired[str | None]
    key: NotRequired[str | None]
    """Of the tasks that it starts."""
    dst: NotRequired[Literal["once", "skip", "twice"]]
    overlap: NotRequired[Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"]]
    catch_up: NotRequired[CatchUp]
    jitter_seconds: NotRequired[float]
    max_runs: NotRequired[int | None]
    pause_after_failures: NotRequired[int | None]
    """So many failed runs in a row pause it."""
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    payload: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    headers: NotRequired[Mapping[str, str] | None]
    tags: NotRequired[Sequence[str] | None]
    target: NotRequired[TargetBody | None]
    limits: NotRequired[Sequence[LimitUse] | None]
    """Named limits that the tasks take that it starts."""
    at: NotRequired[Instant | None]
    start_at: NotRequired[Instant | None]
    end_at: NotRequired[Instant | None]
    on_complete: NotRequired[OnCompleteBody | None]


class SourceDefinition(TypedDict):
    kind: Literal["redis_stream", "sqs"]
    queue: str
    """Where its messages become tasks."""
    type: NotRequired[str | None]
    """Of its tasks."""
    headers: NotRequired[Mapping[str, str]]
    """Of its tasks, beside those of the message, which go before headers of the same name."""
    tags: NotRequired[Sequence[str]]
    priority: NotRequired[int]
    body: NotRequired[Literal["base64", "json", "text"]]
    """How a message's body becomes the payload: it is JSON; any text, as a JSON string; or bytes in base64."""
    on_invalid: NotRequired[Literal["dead", "wrap"]]
    """What becomes of a body that is not what `body` says: a payload `{"invalid": "<why>", "body": "<the text>"}`
    (`body_base64` if it is not text), or a dead task with its bytes."""
    max_outstanding: NotRequired[int]
    """While so many of its tasks have not ended, no messages are received."""
    key_from: NotRequired[str | None]
    """Where a task's `key` comes from: a JSON Pointer into the payload (`/customer/id`), or a header of the message.
    Without it: the MessageGroupId of SQS."""
    description: NotRequired[str | None]
    queue_url: NotRequired[str | None]
    """sqs: required."""
    region: NotRequired[str | None]
    """sqs: required."""
    endpoint_url: NotRequired[str | None]
    """sqs: another server than the one that `queue_url` names."""
    credentials: NotRequired[AwsCredentials | None]
    """sqs: write-only. Absent: those given before are kept; null: those that the replicas find in the usual AWS
    chain."""
    visibility_seconds: NotRequired[int | None]
    """sqs: how long a message is hidden from others, and again while it is being enqueued. Default: 60."""
    url: NotRequired[str]
    """redis_stream: `redis://` or `rediss://`. Write-only; absent: the one given before is kept."""
    stream: NotRequired[str | None]
    """redis_stream: required."""
    group: NotRequired[str | None]
    """redis_stream: required. The consumer group, made at first use."""
    start: NotRequired[Literal["$", "0"] | None]
    """redis_stream: where a new group begins: at the first entry (`0`, the default) or the next (`$`)."""
    field: NotRequired[str | None]
    """redis_stream: the field of an entry that is the body. Default: `body`."""
    claim_idle_seconds: NotRequired[int | None]
    """redis_stream: entries that a consumer has held for so long are taken over from it. Default: 60."""


class ApplyBody(TypedDict):
    """The definitions that should exist. Sections that are absent or null are left as they are."""

    named_limits: NotRequired[Mapping[str, LimitDefinition] | None]
    handlers: NotRequired[Mapping[str, HandlerBody] | None]
    queues: NotRequired[Mapping[str, QueueBody] | None]
    schedules: NotRequired[Mapping[str, ScheduleBody] | None]
    sources: NotRequired[Mapping[str, SourceDefinition] | None]
    limits: NotRequired[Limits | None]
    owner: NotRequired[str | None]
    """Who manages these definitions. Without it, existing definitions keep their owner and new ones have none."""
    prune: NotRequired[bool]
    """Delete definitions with this owner that are not in the document, in the sections that are present."""
    version: NotRequired[str | None]
    """Version of a plan; the apply is refused if the plan has changed since."""


Outcome: TypeAlias = Literal[
    "cancelled",
    "egress_denied",
    "failed",
    "held",
    "lease_expired",
    "pushed_back",
    "released",
    "stale",
    "succeeded",
    "timeout",
    "too_large",
    "unreachable",
]


class AttemptView(TypedDict):
    """One claim of a task."""

    number: int
    counted: bool
    replica: str | None
    started_at: str
    ended_at: str | None
    outcome: Outcome | None
    """null while the attempt is running."""
    status: int | None
    error: str | None
    excerpt: str | None
    trace_id: str | None
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""


class KeyActor(TypedDict):
    """Who called: a key, or anyone where authentication is off (`key` is null)."""

    key: str | None
    tenant: str
    scope: str


class AuditOut(TypedDict):
    """Who changed what, when, from where, with what result."""

    id: str
    at: str
    actor: Literal["cli", "system"] | KeyActor
    """`cli`: a command on the database itself; `system`: Sluice did it by itself."""
    verb: str
    noun: str
    name: str | None
    """Name or id of what was changed; null for what has none."""
    tenant: str
    """Whose it is."""
    outcome: Literal["done", "refused"]
    code: str | None
    """Error code, if it was refused."""
    calls: int
    """How many calls it stands for: more than one only of calls that were refused after many others of the same key
    in the same minute."""
    before: dict[str, Any] | None
    """The fields that changed; secrets, headers and content as `***`. Null: there was nothing, or nothing is left."""
    after: dict[str, Any] | None
    """The fields that changed; secrets, headers and content as `***`. Null: there was nothing, or nothing is left."""
    address: str | None
    """Where the connection came from; behind a proxy, the proxy."""
    request_id: str | None
    """The `x-request-id` of the call, which is also in the log."""
    replica: str | None


BackfillBody = TypedDict(
    "BackfillBody",
    {
        "from": Instant,
        "to": Instant,
        "overlap": NotRequired[Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] | None],
        "rerun": NotRequired[bool],
    },
)


class Backfilled(TypedDict):
    matched: int
    """Nominal times in the window."""
    started: int
    waiting: int
    passed_over: int
    """Times that already have a run, or are about to fire."""
    skipped: int
    """Times that the overlap policy kept from running; they stay as they were."""


class TaskCallbacks(TypedDict):
    """Of a task: absent means the queue's."""

    succeeded: NotRequired[Callback | None]
    dead: NotRequired[Callback | None]
    cancelled: NotRequired[Callback | None]


class TaskBody(TypedDict):
    """A task as sent: types and limits are checked, other rules are not yet."""

    payload: NotRequired[Any]
    """Any JSON, including null. It reaches the handler byte for byte. Required without `payload_base64`."""
    payload_base64: NotRequired[str | None]
    """Instead of `payload`: any bytes, as base64."""
    content_type: NotRequired[str | None]
    """What the payload is delivered as. Beside `payload`, it is JSON and the default `application/json`; beside
    `payload_base64`, the default is `application/octet-stream`."""
    type: NotRequired[str | None]
    delay_seconds: NotRequired[float | None]
    """Cannot be combined with `run_at`."""
    run_at: NotRequired[Instant | None]
    """Cannot be combined with `delay_seconds`; a time in the past means now."""
    ttl_seconds: NotRequired[float | None]
    """Cannot be combined with `expires_at`."""
    expires_at: NotRequired[Instant | None]
    """Cannot be combined with `ttl_seconds`. Limits when an attempt may start, not how long it runs."""
    priority: NotRequired[int]
    """Higher priorities always start first."""
    idempotency_key: NotRequired[str | None]
    """Can also be sent in the header `Idempotency-Key`."""
    unique_key: NotRequired[str | None]
    """At most one unfinished task per queue can have it."""
    on_duplicate: NotRequired[Literal["keep", "postpone", "replace"] | None]
    """What happens if a waiting task has the `unique_key`. `keep`: nothing. `replace`: it takes this payload and
    these options. `postpone`: its `run_at` moves too, never to an earlier time. A running task is kept."""
    debounce_max_seconds: NotRequired[float | None]
    """Only with `postpone`: how long after its creation a task can be postponed to at most."""
    retry: NotRequired[Mapping[str, Any] | None]
    """Partial; merged over the queue's."""
    timeout_seconds: NotRequired[float | None]
    """null: the queue's, else the handler's."""
    correlation_id: NotRequired[str | None]
    headers: NotRequired[Mapping[str, str] | None]
    """Sent with every delivery of this task."""
    tags: NotRequired[Sequence[str] | None]
    handler: NotRequired[str | None]
    """Overrides the queue's handler, on a queue that has one."""
    target: NotRequired[TargetBody | None]
    """Where and how to deliver it, as far as the handler's `targets` allows."""
    key: NotRequired[str | None]
    """Whose task it is: the keys of a queue share it fairly."""
    limits: NotRequired[Sequence[LimitUse] | None]
    """Named limits that it takes, beside those of its queue and handler."""
    callbacks: NotRequired[TaskCallbacks | None]
    """Replace the queue's, state by state; null for a state: none is enqueued."""


class BatchBody(TypedDict):
    queue: str
    """The queue of all its tasks."""
    tasks: NotRequired[Sequence[TaskBody]]
    """All tasks, or the first ones."""
    on_complete: NotRequired[OnCompleteBody | None]
    """Enqueued once, when all tasks of the batch have ended."""
    sealed: NotRequired[bool]
    """false: more tasks will be added; the batch completes only after it has been sealed."""


class BatchCounts(TypedDict):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class BatchSeen(TypedDict):
    batch: str
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    sealed: bool
    created_at: str
    total: int
    succeeded: int
    dead: int
    cancelled: int
    percent: float | None


class BatchTasksBody(TypedDict):
    tasks: Sequence[TaskBody]


class CompletionView(TypedDict):
    """What is enqueued when the batch completes."""

    queue: str
    task: str | None
    """The id of the task, once the batch has completed."""


class BatchView(TypedDict):
    id: str
    queue: str
    sealed: bool
    """No tasks can be added through the API; always true for batches formed by follow-up work."""
    total: int
    counts: BatchCounts
    """By state; the sum is `total`."""
    percent: float
    """Share of its tasks that have ended; 100 only when all have."""
    rate: float
    """Tasks that end per second, over about the last 30 seconds."""
    eta: str | None
    """When all tasks will have ended at this rate; null while that cannot be estimated."""
    created_at: str
    cancelled_at: str | None
    cancel_reason: str | None
    """`requested`, or `superseded` by a later run of its schedule."""
    completed_at: str | None
    """When all tasks had ended for the first time; a retry does not change it."""
    on_complete: list[CompletionView]


class FullLimit(TypedDict):
    """The limit that is full."""

    name: str
    key: NotRequired[str]
    used: NotRequired[int]
    max: NotRequired[int]


class HoldingTask(TypedDict):
    """A task that holds a place."""

    task: str
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    started_at: NotRequired[str]
    replica: NotRequired[str]
    """Absent for a task that a worker holds."""
    lease_expires_at: NotRequired[str]


class NextStep(TypedDict):
    """What can be done. With a method, it is a request that does it."""

    text: str
    method: NotRequired[Literal["PATCH", "POST", "PUT"]]
    path: NotRequired[str]
    body: NotRequired[dict[str, Any]]


class Blocker(TypedDict):
    """One thing that keeps a task from starting."""

    code: WaitingFor
    detail: str
    since: NotRequired[str]
    until: NotRequired[str]
    """When it ends by itself."""
    limit: NotRequired[FullLimit]
    holders: NotRequired[list[HoldingTask]]
    """Up to 20 of those that hold the limit, the longest running first."""
    next: NotRequired[NextStep]
    """What would remove it."""


class BreakerBody(TypedDict):
    open: NotRequired[Literal[True] | None]
    """Nothing is delivered until the breaker is closed by hand."""
    close: NotRequired[Literal[True] | None]
    """Tasks are delivered again, few at first."""


class BreakerShown(TypedDict):
    """When to stop calling a service that fails."""

    window_seconds: int
    min_calls: int
    """With fewer calls in the window it stays closed."""
    failure_percent: float
    open_seconds: float
    """Until the first probe."""
    open_max_seconds: float
    """Each failed probe doubles the time, up to this."""


class BulkBody(TypedDict):
    tasks: Sequence[TaskBody]
    atomic: NotRequired[bool]
    """All or nothing: if any task is refused, the answer is 422 and nothing is stored."""


class FieldProblem(TypedDict):
    pointer: str
    """RFC 6901 pointer into the body, or a parameter's name; empty for the whole request."""
    detail: str


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    """Stable error code, for programs."""
    detail: str
    """Explanation, for people."""
    errors: list[FieldProblem]


class RefusedOut(TypedDict):
    status: int
    """413, 422 or 429; 503 if the database became unavailable after earlier tasks were stored."""
    problem: Problem


class StoredOut(TypedDict):
    status: Literal[200, 201]
    """200: a task with this idempotency key or unique key already existed."""
    id: str
    unique_held: NotRequired[bool]
    """`true` if an unfinished task has its unique key; otherwise absent."""


class BulkOut(TypedDict):
    results: list[StoredOut | RefusedOut]
    """The result of each task, in order."""


class ByHand(TypedDict):
    """Who did it, as the audit has it."""

    actor: Literal["cli", "key", "system"]
    key: str
    """The id of the API key; absent without one."""
    at: str
    request_id: NotRequired[str]


class CallbacksShown(TypedDict):
    """Of a queue."""

    succeeded: CallbackShown | None
    dead: CallbackShown | None
    cancelled: CallbackShown | None


class CallsOut(TypedDict):
    """The calls of the breaker's window, by all replicas. Those before the last change of its state no longer count."""

    seconds: int
    calls: int
    failures: int
    """Unreachable, timed out, 5xx or 429."""
    pushed_back: int
    """Of these, 429 and 503."""
    failure_percent: float | None
    calls_per_second: float
    p50_seconds: float | None
    p95_seconds: float | None


class CatchUpShown(TypedDict):
    """What happens to times that are found late."""

    window_seconds: float | None
    """Times older than this are missed; null: however old."""
    mode: Literal["all", "latest", "none"]
    """Which of the times that are found late run."""


class Counts(TypedDict):
    scheduled: int
    ready: int
    running: int
    dead: int


class CountsOut(TypedDict):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class DatabaseSeen(TypedDict):
    server_version: str
    schema_version: int
    size_bytes: int
    connections: int
    max_connections: int
    oldest_xmin_age_seconds: float | None
    answer_seconds: float


class DefinitionsBody(TypedDict):
    """The definitions that should exist. Sections that are absent or null are left as they are."""

    named_limits: NotRequired[Mapping[str, LimitDefinition] | None]
    handlers: NotRequired[Mapping[str, HandlerBody] | None]
    queues: NotRequired[Mapping[str, QueueBody] | None]
    schedules: NotRequired[Mapping[str, ScheduleBody] | None]
    sources: NotRequired[Mapping[str, SourceDefinition] | None]
    limits: NotRequired[Limits | None]
    owner: NotRequired[str | None]
    """Who manages these definitions. Without it, existing definitions keep their owner and new ones have none."""
    prune: NotRequired[bool]
    """Delete definitions with this owner that are not in the document, in the sections that are present."""


class ErrorExample(TypedDict):
    task: str
    error: str | None


class ErrorGroup(TypedDict):
    """Tasks whose last errors have one signature."""

    signature: str | None
    """The error with ids, numbers and what stands in quotes replaced."""
    count: int
    """Tasks that failed so, unfinished ones included."""
    dead: int
    """Of these, how many are dead."""
    first_seen: str
    last_seen: str
    example: ErrorExample
    """The newest."""
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""


class FailBody(TypedDict):
    error: str
    retryable: NotRequired[bool]
    """false: the task is dead, with reason `stopped_by_worker`."""
    retry_after_seconds: NotRequired[float]
    """Minimum delay before the next attempt, up to the queue's retry_after_max_seconds."""


class FilledBatch(TypedDict):
    id: str
    queue: str
    sealed: bool
    """No tasks can be added through the API; always true for batches formed by follow-up work."""
    total: int
    counts: BatchCounts
    """By state; the sum is `total`."""
    percent: float
    """Share of its tasks that have ended; 100 only when all have."""
    rate: float
    """Tasks that end per second, over about the last 30 seconds."""
    eta: str | None
    """When all tasks will have ended at this rate; null while that cannot be estimated."""
    created_at: str
    cancelled_at: str | None
    cancel_reason: str | None
    """`requested`, or `superseded` by a later run of its schedule."""
    completed_at: str | None
    """When all tasks had ended for the first time; a retry does not change it."""
    on_complete: list[CompletionView]
    results: list[StoredOut | RefusedOut]
    """The result of each task, in order."""


class FollowUpBody(TypedDict):
    payload: NotRequired[Any]
    """Any JSON, including null. It reaches the handler byte for byte. Required without `payload_base64`."""
    payload_base64: NotRequired[str | None]
    """Instead of `payload`: any bytes, as base64."""
    content_type: NotRequired[str | None]
    """What the payload is delivered as. Beside `payload`, it is JSON and the default `application/json`; beside
    `payload_base64`, the default is `application/octet-stream`."""
    type: NotRequired[str | None]
    delay_seconds: NotRequired[float | None]
    """Cannot be combined with `run_at`."""
    run_at: NotRequired[Instant | None]
    """Cannot be combined with `delay_seconds`; a time in the past means now."""
    ttl_seconds: NotRequired[float | None]
    """Cannot be combined with `expires_at`."""
    expires_at: NotRequired[Instant | None]
    """Cannot be combined with `ttl_seconds`. Limits when an attempt may start, not how long it runs."""
    priority: NotRequired[int]
    """Higher priorities always start first."""
    unique_key: NotRequired[str | None]
    """At most one unfinished task per queue can have it."""
    on_duplicate: NotRequired[Literal["keep", "postpone", "replace"] | None]
    """What happens if a waiting task has the `unique_key`. `keep`: nothing. `replace`: it takes this payload and
    these options. `postpone`: its `run_at` moves too, never to an earlier time. A running task is kept."""
    debounce_max_seconds: NotRequired[float | None]
    """Only with `postpone`: how long after its creation a task can be postponed to at most."""
    retry: NotRequired[Mapping[str, Any] | None]
    """Partial; merged over the queue's."""
    timeout_seconds: NotRequired[float | None]
    """null: the queue's, else the handler's."""
    correlation_id: NotRequired[str | None]
    headers: NotRequired[Mapping[str, str] | None]
    """Sent with every delivery of this task."""
    tags: NotRequired[Sequence[str] | None]
    handler: NotRequired[str | None]
    """Overrides the queue's handler, on a queue that has one."""
    target: NotRequired[TargetBody | None]
    """Where and how to deliver it, as far as the handler's `targets` allows."""
    key: NotRequired[str | None]
    """Whose task it is: the keys of a queue share it fairly."""
    limits: NotRequired[Sequence[LimitUse] | None]
    """Named limits that it takes, beside those of its queue and handler."""
    callbacks: NotRequired[TaskCallbacks | None]
    """Replace the queue's, state by state; null for a state: none is enqueued."""
    idempotency_key: str
    """Unique per root task and queue; the first task with a key wins."""
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""


class Grant(TypedDict):
    """The operator's limits for a tenant."""

    max_concurrency: NotRequired[int | None]
    """null: only the tenant's own limit applies."""


class GrantOut(TypedDict):
    tenant: str
    max_concurrency: int | None


class GroupingShown(TypedDict):
    """Several tasks of one queue in one request."""

    max_tasks: int
    """The most tasks that one request carries."""
    wait_seconds: float
    """How long a ready task may wait for others, while there are fewer than `max_tasks`."""


class HandlerHealthOut(TypedDict):
    handler: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    state: Literal["closed", "half_open", "open"] | None
    """Of its breaker: open admits nothing, half_open a single probe. null: it has none."""
    since: str | None
    """null: since the breaker was defined."""
    next_probe_at: str | None
    """While open; null if it was opened by hand."""
    opened_by_hand: bool
    slow_start: bool
    """It has closed lately; its limit doubles each second."""
    parked_until: str | None
    """A Retry-After asked for no calls before then."""
    running: int | None
    """Its tasks that run now; null without breaker and adaptive."""
    max_concurrency: int | None
    effective_max_concurrency: int | None
    """The limit now, by the breaker, the slow start and `adaptive`; null: none."""
    window: CallsOut | None
    """null without breaker and adaptive: nothing is counted."""


class RateShown(TypedDict):
    """A token bucket. In any W seconds it admits at most burst + limit x W / period_seconds units, on all replicas
    together."""

    limit: float
    """Units per period; a task costs one unless it says more."""
    period_seconds: float
    burst: int | None
    """Units admitted at once after a pause; null: what 0.1 s brings, at least 1."""


class HandlerOut(TypedDict):
    timeout_seconds: float
    max_concurrency: int | None
    fatal_statuses: list[int]
    description: str | None
    breaker: BreakerShown | None
    """null: a failing service is called all the same."""
    adaptive: AdaptiveShown | None
    """null: max_concurrency is the limit. Otherwise it is required, and the most."""
    park_on_retry_after: Literal["handler", "key", "task"]
    """What waits when an answer has a `Retry-After`: the task, all of its key, or the whole handler."""
    rate: RateShown | None
    """How many of its tasks start in a while."""
    kind: Literal["redis_stream", "sqs", "webhook"]
    """How tasks are delivered; each kind has fields of its own."""
    url: NotRequired[str]
    """Of a webhook; absent otherwise."""
    headers: NotRequired[dict[str, str]]
    """Of a webhook: header names; each value is shown as `***`."""
    group: NotRequired[GroupingShown | None]
    """Of a webhook."""
    targets: NotRequired[Literal["any", "own", "path"]]
    """Of a webhook."""
    limits: list[LimitUseShown]
    queue_url: NotRequired[str]
    """Of kind sqs, as the next three."""
    region: NotRequired[str]
    endpoint_url: NotRequired[str | None]
    credentials: NotRequired[Any]
    """Never shown."""
    group_id_from: NotRequired[Literal["key"] | None]
    stream: NotRequired[str]
    """Of kind redis_stream, as the next one."""
    maxlen: NotRequired[int | None]
    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    enabled: bool
    disabled_at: str | None
    disabled_reason: str | None
    secrets_lost: NotRequired[bool]
    """What it keeps secret cannot be decrypted; deliveries fail until it is PUT again with all of it."""
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Owner named by the definitions document that manages it, if any."""


class HandlerSaved(TypedDict):
    timeout_seconds: float
    max_concurrency: int | None
    fatal_statuses: list[int]
    description: str | None
    breaker: BreakerShown | None
    """null: a failing service is called all the same."""
    adaptive: AdaptiveShown | None
    """null: max_concurrency is the limit. Otherwise it is required, and the most."""
    park_on_retry_after: Literal["handler", "key", "task"]
    """What waits when an answer has a `Retry-After`: the task, all of its key, or the whole handler."""
    rate: RateShown | None
    """How many of its tasks start in a while."""
    kind: Literal["redis_stream", "sqs", "webhook"]
    """How tasks are delivered; each kind has fields of its own."""
    url: NotRequired[str]
    """Of a webhook; absent otherwise."""
    headers: NotRequired[dict[str, str]]
    """Of a webhook: header names; each value is shown as `***`."""
    group: NotRequired[GroupingShown | None]
    """Of a webhook."""
    targets: NotRequired[Literal["any", "own", "path"]]
    """Of a webhook."""
    limits: list[LimitUseShown]
    queue_url: NotRequired[str]
    """Of kind sqs, as the next three."""
    region: NotRequired[str]
    endpoint_url: NotRequired[str | None]
    credentials: NotRequired[Any]
    """Never shown."""
    group_id_from: NotRequired[Literal["key"] | None]
    stream: NotRequired[str]
    """Of kind redis_stream, as the next one."""
    maxlen: NotRequired[int | None]
    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    enabled: bool
    disabled_at: str | None
    disabled_reason: str | None
    secrets_lost: NotRequired[bool]
    """What it keeps secret cannot be decrypted; deliveries fail until it is PUT again with all of it."""
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Owner named by the definitions document that manages it, if any."""
    secret: str | None
    """The signing secret if it is new, otherwise null; it is shown only once."""


class HandlerSeen(TypedDict):
    """A handler with a limit of its own or a breaker, or that is parked or disabled."""

    handler: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    enabled: bool
    breaker: str | None
    parked_seconds: float
    running: int
    max_concurrency: int | None
    """In force now; 0 while its breaker is open."""


class HealthOut(TypedDict):
    status: Literal["ok"]


class HolderOut(TypedDict):
    task: str
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    key: str | None
    started_at: str


class KeyBody(TypedDict):
    """A key to create."""

    tenant: NotRequired[str | None]
    """Whose key it is, the caller's by default. Another one needs scope operate; made if new."""
    kind: NotRequired[Literal["aws", "bearer"]]
    """`bearer`: a token for this API. `aws`: an access key with which SQS clients sign their requests."""
    scope: NotRequired[Literal["manage", "operate", "read", "use"]]
    """Each scope includes those before it."""
    queues: NotRequired[Sequence[str] | None]
    """Confines the key to these queues, and to the tasks, batches and schedules on them."""
    payloads: NotRequired[bool]
    """false: payloads, results, excerpts, progress and error texts are null, and no task is pulled."""
    expires_at: NotRequired[Instant | None]
    description: NotRequired[str | None]


class KeyCountOut(TypedDict):
    key: str
    ready: int
    oldest_age_seconds: float


class KeyIssued(TypedDict):
    """A key with its secret."""

    id: str
    """Of kind `aws`: the access key id."""
    tenant: str
    kind: Literal["aws", "bearer"]
    """`bearer`: a token for this API. `aws`: an access key with which SQS clients sign their requests."""
    scope: Literal["manage", "operate", "read", "use"]
    queues: list[str] | None
    payloads: bool
    expires_at: str | None
    description: str | None
    created_at: str
    last_used_at: str | None
    """To the minute."""
    revoked_at: str | None
    token: str
    """Send it as `Authorization: Bearer …`; of kind `aws`, the secret access key. It is not shown again."""
    access_key_id: NotRequired[str]
    """Only of kind `aws`: the key's id."""
    secret_access_key: NotRequired[str]
    """Only of kind `aws`: SQS clients sign with it. It is not shown again."""


class KeyOut(TypedDict):
    """One key of a limit."""

    holding: int
    """Running tasks that take it."""
    effective_max_concurrency: int | None
    tokens: float | None
    """Units of the rate that could start at once; null without a rate, and over all keys of a keyed limit."""
    next_at: str | None
    """When the next unit can start; null: now."""
    waiting_keys: int
    """How many keys wait for it."""
    holders: list[HolderOut]
    """Up to 20 of the running tasks, the longest running first."""
    key: str
    max_concurrency: int | None
    rate: RateShown | None
    paused: bool
    paused_at: str | None
    overridden: bool
    """It has values of its own."""


class KeyOverride(TypedDict):
    """What holds for one key of a keyed limit, in place of the limit's own values."""

    max_concurrency: NotRequired[int | None]
    """null: the limit's."""
    rate: NotRequired[Rate | None]
    """null: the limit's."""


class KeyView(TypedDict):
    """A key, without its secret."""

    id: str
    """Of kind `aws`: the access key id."""
    tenant: str
    kind: Literal["aws", "bearer"]
    """`bearer`: a token for this API. `aws`: an access key with which SQS clients sign their requests."""
    scope: Literal["manage", "operate", "read", "use"]
    queues: list[str] | None
    payloads: bool
    expires_at: str | None
    description: str | None
    created_at: str
    last_used_at: str | None
    """To the minute."""
    revoked_at: str | None


class KeysOut(TypedDict):
    """The keys that have ready tasks."""

    waiting: int
    blocked: int
    """Of these, how many have no room or are paused."""
    top: list[KeyCountOut]
    """Up to 10 with the most ready tasks."""


class LeaseBody(TypedDict):
    max_tasks: NotRequired[int]
    wait_seconds: NotRequired[float]
    """How long to wait for the first task."""
    lease_seconds: NotRequired[float]


class LeasedTaskView(TypedDict):
    """A task for its present holder."""

    id: str
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    handler: str | None
    type: str | None
    state: State
    reason: Reason | None
    priority: int
    payload: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep). Absent in lists without `include=payload`."""
    payload_base64: NotRequired[str]
    """Instead of `payload`, if it came as base64."""
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""
    content_type: str
    """What the payload is delivered as."""
    encrypted: NotRequired[Literal[True]]
    """Payload, result and excerpts are encrypted in the database."""
    content_lost: NotRequired[Literal[True]]
    """They cannot be decrypted, because they were changed there, or moved from another task."""
    headers: dict[str, str]
    tags: list[str]
    target: TaskTarget | None
    correlation_id: str | None
    idempotency_key: str | None
    unique_key: str | None
    created_at: str
    run_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None
    attempt: int
    max_attempts: int
    timeout_seconds: float | None
    last_error: str | None
    result: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    result_encoding: NotRequired[Literal["base64"]]
    result_truncated: bool
    progress: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    lease: LeaseView | None
    replica: str | None
    schedule: str | None
    scheduled_for: str | None
    batch: str | None
    parent: str | None
    key: str | None
    limits: list[LimitUseShown]
    """What it takes itself, beside what its queue and handler do."""
    callbacks: dict[str, CallbackShown | None] | None
    """The task's own, by state, which replace the queue's; null for a state: none is enqueued."""
    waiting_for: WaitingFor | None
    """Only for unfinished tasks."""
    waiting_on: WaitingOn | None
    """The limit, key and instant that `waiting_for` speaks of."""
    cursor: str | None
    """For a continuation, the `next` of the page before it."""
    schedule_timezone: str | None
    """For a schedule's run, the time zone of the definition that fired."""
    scheduled_for_local: str | None
    """`scheduled_for` in that time zone, with its offset."""
    lease_token: str
    """The only credential of this lease; send it as `Sluice-Lease-Token`."""
    lease_expires_at: str


class LeasedTasks(TypedDict):
    tasks: list[LeasedTaskView]


class LimitOut(TypedDict):
    """A named limit."""

    holding: int
    """Running tasks that take it."""
    effective_max_concurrency: int | None
    tokens: float | None
    """Units of the rate that could start at once; null without a rate, and over all keys of a keyed limit."""
    next_at: str | None
    """When the next unit can start; null: now."""
    waiting_keys: int
    """How many keys wait for it."""
    holders: list[HolderOut]
    """Up to 20 of the running tasks, the longest running first."""
    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    max_concurrency: int | None
    rate: RateShown | None
    keyed: bool
    description: str | None
    paused: bool
    paused_at: str | None
    overridden: bool
    """Some key has values of its own."""
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Owner named by the definitions document that manages it, if any."""


class LimitSeen(TypedDict):
    level: str
    """tenant, handler or named; those of queues are with the queue."""
    name: str
    max: int | None
    used: int
    paused: bool


class LimitsOut(TypedDict):
    """The tenant's limits over all its queues, and a page of its named ones."""

    max_concurrency: int | None
    rate: RateShown | None
    granted_max_concurrency: NotRequired[int]
    """The operator's limit for this tenant, if any. The lower one applies."""
    items: list[LimitOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class OnCompleteBodyShown(TypedDict):
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    payload: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    type: NotRequired[str | None]


class PerMinute(TypedDict):
    """Averages over the last five full minutes and the current one."""

    enqueued: float
    started: float
    succeeded: float
    dead: float
    cancelled: float
    retried: float
    """Attempts that failed and whose task waits for the next one."""


class Quantiles(TypedDict):
    p50: float | None
    p95: float | None


class QueueSeen(TypedDict):
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    paused: bool
    paused_at: str | None
    handler: str | None
    handler_enabled: bool | None
    disabled_reason: str | None
    worker_asked_at: str | None
    """When a worker last asked for tasks; null: none yet."""
    tasks: Counts
    oldest_ready_age_seconds: float | None
    per_minute: PerMinute
    success_share: float | None
    """Of attempts that ended lately: how many succeeded; null if none did end."""
    wait_seconds: Quantiles
    run_seconds: Quantiles
    dead_lately: int
    """Tasks that died in the last 15 minutes."""
    max_concurrency: int | None
    max_depth: int | None


class ReplicaSeen(TypedDict):
    replica: str
    roles: str
    version: str
    started_at: str
    seen_at: str
    silent: bool
    draining: bool
    deaf: bool
    """It receives no NOTIFY and learns of changes by polling."""
    in_flight: int
    max_in_flight: int
    database_connections: int


class ScheduleSeen(TypedDict):
    schedule: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    paused: bool
    next_at: str | None
    """The next nominal time."""
    late_seconds: float
    missed: int
    """How many of its times were missed, in all."""


class Verdict(TypedDict):
    """`rule` names the rule that decided, `judged_by` is what it looked at."""

    state: Literal["degraded", "ok", "stuck"]
    rule: str
    sentence: str
    judged_by: dict[str, int | float | None]
    queues: list[str]


class Verdicts(TypedDict):
    flow: Verdict
    """Does what is ready start?"""
    execution: Verdict
    """Does what starts succeed?"""
    liveness: Verdict
    """Are replicas, their loops and the database there?"""


class Overview(TypedDict):
    tenant: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    as_of: str
    verdicts: Verdicts
    alarms: list[dict[str, Any]]
    """What needs attention, the most severe first."""
    totals: Counts
    """Over all queues."""
    per_minute: PerMinute
    queues: list[QueueSeen]
    schedules: list[ScheduleSeen]
    """Those due next, late, or with missed times."""
    batches: list[BatchSeen]
    """Up to 50 under way, the newest first."""
    limits: list[LimitSeen]
    handlers: list[HandlerSeen]
    replicas: NotRequired[list[ReplicaSeen]]
    """With scope operate."""
    database: NotRequired[DatabaseSeen]
    """With scope operate."""


class PageBody(TypedDict):
    """Validated like the answer of a handler, with payloads kept as bytes."""

    result: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep)."""
    result_encoding: NotRequired[Literal["base64"] | None]
    """`base64`: the result is binary data in base64, and is shown as such."""
    result_truncated: NotRequired[bool]
    """The result was truncated; shown with the task."""
    tasks: NotRequired[Sequence[FollowUpBody]]
    """Enqueued together with the completion."""
    next: NotRequired[str | None]
    """Also enqueue this task again with this cursor, as a continuation."""
    on_complete: NotRequired[OnCompleteBody | None]
    """Enqueued when all tasks of the batch have ended."""


class ActionViewPage(TypedDict):
    items: list[ActionView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class AttemptViewPage(TypedDict):
    items: list[AttemptView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class AuditOutPage(TypedDict):
    items: list[AuditOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class BatchViewPage(TypedDict):
    items: list[BatchView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class HandlerOutPage(TypedDict):
    items: list[HandlerOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class KeyOutPage(TypedDict):
    items: list[KeyOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class KeyViewPage(TypedDict):
    items: list[KeyView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class QueueKeyShown(TypedDict):
    """What holds for each distinct key of a queue's tasks."""

    max_concurrency: int | None
    rate: RateShown | None
    max_depth: int | None
    """Exact limit on scheduled and ready tasks of one key."""
    ordered: bool
    """The tasks of a key start one at a time, strictly in the order in which they were enqueued."""
    required: bool
    """A task without a key is refused."""


class RetentionShown(TypedDict):
    """How many days ended tasks stay readable."""

    succeeded_days: int
    cancelled_days: int
    dead_days: int


class QueueOut(TypedDict):
    handler: str | None
    """The handler that its tasks are delivered to; null: a queue for pull workers."""
    max_concurrency: int | None
    max_depth: int | None
    """Exact limit on scheduled and ready tasks."""
    rate: RateShown | None
    """How many of its tasks start in a while."""
    key: QueueKeyShown | None
    """What holds for each distinct key of its tasks."""
    timeout_seconds: float | None
    """null: the handler's."""
    idempotency_seconds: float
    retention: RetentionShown
    callbacks: CallbacksShown
    """What is enqueued when a task of this queue ends, by the state it ends in."""
    encrypt: bool
    """Whether payload, result and excerpts of its new tasks are encrypted in the database."""
    description: str | None
    retry: dict[str, Any]
    """Complete."""
    payload_schema: dict[str, Any] | bool | None
    """Payloads are validated against it when they are enqueued; null: anything is accepted."""
    limits: list[LimitUseShown]
    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    paused: bool
    paused_at: str | None
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Owner named by the definitions document that manages it, if any."""


class QueueOutPage(TypedDict):
    items: list[QueueOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class RunOut(TypedDict):
    """A row of the ledger: one run, or consecutive nominal times without a run."""

    nominal_at: str
    nominal_until: str
    """The row's last nominal time; for a run, its only one."""
    count: int
    """Nominal times in the row."""
    cause: Literal["backfill", "catch_up", "cron", "trigger"]
    fired_at: str | None
    started_at: str | None
    completed_at: str | None
    outcome: Literal[
        "cancelled",
        "dropped",
        "missed",
        "paused",
        "ran_failed",
        "ran_ok",
        "running",
        "skipped_overlap",
        "superseded",
        "waiting",
    ]
    lag_seconds: float | None
    """fired_at - nominal_at - jitter; null in a row created by a backfill."""
    task_id: str | None
    batch_id: str | None
    replica: str | None


class RunOutPage(TypedDict):
    items: list[RunOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class ScheduledTime(TypedDict):
    at: str
    local: str
    """In the schedule's zone, with its offset."""


class ScheduleView(TypedDict):
    """A schedule."""

    cron: str | None
    """Five fields as Debian reads them, `@daily` …, or `every 15 minutes`."""
    every_seconds: float | None
    phase_seconds: float
    """Times are epoch + n x every + phase."""
    seconds: bool
    """`cron` may have six fields, the first one seconds."""
    timezone: str
    """An IANA zone."""
    type: str | None
    priority: int
    retry: dict[str, Any] | None
    timeout_seconds: float | None
    handler: str | None
    key: str | None
    """Of the tasks that it starts."""
    dst: Literal["once", "skip", "twice"]
    overlap: Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"]
    catch_up: CatchUpShown
    jitter_seconds: float
    max_runs: int | None
    pause_after_failures: int | None
    """So many failed runs in a row pause it."""
    id: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    payload: Any
    """Any JSON (I-JSON, at most 128 levels deep)."""
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""
    headers: dict[str, str]
    tags: list[str]
    target: TaskTarget | None
    limits: list[LimitUseShown]
    at: str | None
    start_at: str | None
    end_at: str | None
    on_complete: OnCompleteBodyShown | None
    paused: bool
    paused_at: str | None
    paused_reason: str | None
    next_nominal_at: str | None
    """The first time that is not in the ledger yet."""
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Of the file of definitions that manages it, if it has one."""
    times: list[ScheduledTime]
    """The next five."""
    reading: str


class ScheduleViewPage(TypedDict):
    items: list[ScheduleView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class SourceOut(TypedDict):
    """A source: the fields of its kind, and how it fares, over all replicas."""

    kind: Literal["redis_stream", "sqs"]
    queue: str
    """Where its messages become tasks."""
    type: str | None
    """Of its tasks."""
    headers: dict[str, str]
    """Of its tasks, beside those of the message, which go before headers of the same name."""
    tags: list[str]
    priority: int
    body: Literal["base64", "json", "text"]
    """How a message's body becomes the payload: it is JSON; any text, as a JSON string; or bytes in base64."""
    on_invalid: Literal["dead", "wrap"]
    """What becomes of a body that is not what `body` says: a payload `{"invalid": "<why>", "body": "<the text>"}`
    (`body_base64` if it is not text), or a dead task with its bytes."""
    max_outstanding: int
    """While so many of its tasks have not ended, no messages are received."""
    key_from: str | None
    """Where a task's `key` comes from: a JSON Pointer into the payload (`/customer/id`), or a header of the message.
    Without it: the MessageGroupId of SQS."""
    description: str | None
    queue_url: NotRequired[str]
    region: NotRequired[str]
    endpoint_url: NotRequired[str | None]
    credentials: NotRequired[Literal["***"] | None]
    visibility_seconds: NotRequired[int]
    url: NotRequired[Literal["***"]]
    stream: NotRequired[str]
    group: NotRequired[str]
    start: NotRequired[Literal["$", "0"]]
    field: NotRequired[str]
    claim_idle_seconds: NotRequired[int]
    name: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    paused: bool
    paused_at: str | None
    secrets_lost: NotRequired[bool]
    """Its secrets cannot be decrypted; nothing is received until it is PUT again with them."""
    received: int
    """Messages, since the source was created."""
    enqueued: int
    """Of these, tasks, the invalid ones included."""
    duplicates: int
    """Received again, although they had been enqueued."""
    invalid: int
    """Wrapped, dead, or left where they are because they are too large."""
    lost: int
    """Messages that the source says are gone: entries trimmed from a stream."""
    in_flight: int
    """Messages that are waiting to be enqueued, because the queue is full."""
    outstanding: int
    """Its tasks that have not ended."""
    last_received_at: str | None
    """When the last message came; null: none has."""
    lag: int | None
    """Messages that wait at the source; null: it has not said."""
    oldest_age_seconds: float | None
    """Of these, the oldest; null: not known."""
    measured_at: str | None
    last_error: str | None
    last_error_at: str | None
    failing_since: str | None
    """When it last worked on any replica; null: it works."""
    replicas: list[str]
    """Those that receive from it."""
    created_at: str
    updated_at: str
    owner: NotRequired[str]
    """Owner named by the definitions document that manages it, if any."""


class SourceOutPage(TypedDict):
    items: list[SourceOut]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class TaskViewPage(TypedDict):
    items: list[TaskView]
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class PatchBody(TypedDict):
    """A merge patch: absent fields are kept, null resets to the default."""

    payload: NotRequired[Any]
    """Replaced as a whole, never merged; null is a valid payload."""
    payload_base64: NotRequired[str]
    """Replaces the payload by bytes."""
    content_type: NotRequired[str | None]
    """A payload that changes its form gets the default of the new one."""
    type: NotRequired[str | None]
    run_at: NotRequired[Instant | None]
    """null: now. Cannot be combined with `delay_seconds`."""
    delay_seconds: NotRequired[float | None]
    """From now. Cannot be combined with `run_at`."""
    expires_at: NotRequired[Instant | None]
    priority: NotRequired[int | None]
    retry: NotRequired[Mapping[str, Any] | None]
    """Merged field by field; a backoff is replaced as a whole."""
    timeout_seconds: NotRequired[float | None]
    headers: NotRequired[Mapping[str, str | None] | None]
    """Merged by name; null removes a header."""
    tags: NotRequired[Sequence[str] | None]
    correlation_id: NotRequired[str | None]
    handler: NotRequired[str | None]
    """null: the queue's."""
    target: NotRequired[TargetBody | None]
    """Replaced as a whole."""
    key: NotRequired[str | None]
    limits: NotRequired[Sequence[LimitUse] | None]
    """Replaced as a whole."""


class PercentilesOut(TypedDict):
    p50: float | None
    p95: float | None
    p99: float | None


class PlanOut(TypedDict):
    version: str
    """A strong ETag over the document and what it was compared with."""
    changes: list[ChangeOut]
    """In the order in which they are applied."""


class Point(TypedDict):
    """What happened in the minute that begins at `at`."""

    at: str
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    retried: int
    wait_p50: float | None
    wait_p95: float | None
    run_p50: float | None
    run_p95: float | None
    ready: int | None
    """Early in that minute; null: not recorded."""
    running: int | None
    """Early in that minute; null: not recorded."""


class Preview(TypedDict):
    times: list[ScheduledTime]
    reading: str
    """The definition in plain English."""


class PreviewBody(TypedDict):
    """A definition that is not saved; it needs no queue and no payload."""

    cron: NotRequired[str | None]
    """Five fields as Debian reads them, `@daily` …, or `every 15 minutes`."""
    every_seconds: NotRequired[float | None]
    phase_seconds: NotRequired[float]
    """Times are epoch + n x every + phase."""
    seconds: NotRequired[bool]
    """`cron` may have six fields, the first one seconds."""
    timezone: NotRequired[str]
    """An IANA zone."""
    type: NotRequired[str | None]
    priority: NotRequired[int]
    retry: NotRequired[Mapping[str, Any] | None]
    timeout_seconds: NotRequired[float | None]
    handler: NotRequired[str | None]
    key: NotRequired[str | None]
    """Of the tasks that it starts."""
    dst: NotRequired[Literal["once", "skip", "twice"]]
    overlap: NotRequired[Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"]]
    catch_up: NotRequired[CatchUp]
    jitter_seconds: NotRequired[float]
    max_runs: NotRequired[int | None]
    pause_after_failures: NotRequired[int | None]
    """So many failed runs in a row pause it."""
    queue: NotRequired[str]
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    payload: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep)."""
    headers: NotRequired[Mapping[str, str] | None]
    tags: NotRequired[Sequence[str] | None]
    target: NotRequired[TargetBody | None]
    limits: NotRequired[Sequence[LimitUse] | None]
    """Named limits that the tasks take that it starts."""
    at: NotRequired[Instant | None]
    start_at: NotRequired[Instant | None]
    end_at: NotRequired[Instant | None]
    on_complete: NotRequired[OnCompleteBody | None]
    count: NotRequired[int]
    after: NotRequired[Instant | None]


class PurgedOut(TypedDict):
    purged: int
    """How many tasks were cancelled."""


class QueueErrors(TypedDict):
    items: list[ErrorGroup]
    """The most frequent first."""
    complete: bool
    """Whether all failures of the last day were looked at, not only the newest."""
    next_cursor: None
    """There is one page."""


class QueueKeyOut(TypedDict):
    """One key of a queue."""

    holding: int
    """Running tasks that take it."""
    effective_max_concurrency: int | None
    tokens: float | None
    """Units of the rate that could start at once; null without a rate, and over all keys of a keyed limit."""
    next_at: str | None
    """When the next unit can start; null: now."""
    waiting_keys: int
    """How many keys wait for it."""
    holders: list[HolderOut]
    """Up to 20 of the running tasks, the longest running first."""
    key: str
    max_concurrency: int | None
    rate: RateShown | None
    paused: bool
    paused_at: str | None
    overridden: bool
    """It has values of its own."""
    weight: int
    waiting: int
    """Its tasks that are scheduled or ready."""


class QueueKeyOverride(TypedDict):
    """What holds for one key of a queue, in place of the queue's `key`."""

    max_concurrency: NotRequired[int | None]
    """null: the limit's."""
    rate: NotRequired[Rate | None]
    """null: the limit's."""
    weight: NotRequired[int]
    """Its share beside the queue's other keys, which weigh 1."""


class RatesOut(TypedDict):
    enqueued: float
    started: float
    ended: float


class QueueStatsOut(TypedDict):
    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    counts: CountsOut
    oldest_ready_age_seconds: float | None
    per_minute: RatesOut
    success_share: float | None
    """Share of recently ended tasks that succeeded; null if none has ended."""
    wait_seconds: PercentilesOut
    run_seconds: PercentilesOut
    keys: KeysOut
    as_of: str


class RedriveBody(TypedDict):
    reason: NotRequired[
        Literal[
            "attempts_exhausted",
            "expired",
            "fatal_status",
            "followup_too_large",
            "invalid_message",
            "pushed_back_too_long",
            "stopped_by_handler",
            "stopped_by_worker",
        ]
        | None
    ]
    type: NotRequired[str | None]
    tag: NotRequired[str | None]
    handler: NotRequired[str | None]
    correlation_id: NotRequired[str | None]
    ended_from: NotRequired[Instant | None]
    ended_to: NotRequired[Instant | None]
    limit: NotRequired[int]
    """Maximum number of tasks to redrive."""
    dry_run: NotRequired[bool]
    """Only count the matching tasks."""


class RedrivenOut(TypedDict):
    matched: int
    """Dead tasks that matched when the call began."""
    moved: int
    remaining: int
    """Matched but not redriven: beyond the limit, or impossible to redrive."""


class RenewBody(TypedDict):
    seconds: float
    """From now; may be earlier than the present end."""
    progress: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep)."""


class RetriedBatch(TypedDict):
    id: str
    queue: str
    sealed: bool
    """No tasks can be added through the API; always true for batches formed by follow-up work."""
    total: int
    counts: BatchCounts
    """By state; the sum is `total`."""
    percent: float
    """Share of its tasks that have ended; 100 only when all have."""
    rate: float
    """Tasks that end per second, over about the last 30 seconds."""
    eta: str | None
    """When all tasks will have ended at this rate; null while that cannot be estimated."""
    created_at: str
    cancelled_at: str | None
    cancel_reason: str | None
    """`requested`, or `superseded` by a later run of its schedule."""
    completed_at: str | None
    """When all tasks had ended for the first time; a retry does not change it."""
    on_complete: list[CompletionView]
    matched: int
    """Dead tasks of the batch."""
    moved: int
    """Tasks that are ready now."""
    remaining: int
    """Tasks that are still dead."""


class RotateKeyBody(TypedDict):
    overlap_seconds: NotRequired[float]
    """How long the present token is still accepted."""


class RotateSecretBody(TypedDict):
    overlap_seconds: NotRequired[float]
    """How long deliveries are also signed with the old secret."""


class RunningOut(TypedDict):
    """Who has a running task."""

    started_at: str
    lease_expires_at: str
    """Its task runs again from then on, unless the lease is renewed."""
    replica: NotRequired[str]
    """Absent if a worker has it."""
    renewed_at: NotRequired[str]
    """Absent if the lease was not renewed."""
    progress: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep)."""


class SecretOut(TypedDict):
    secret: str
    """The new signing secret. It is not shown again."""
    overlap_seconds: float


class Series(TypedDict):
    queue: str | None
    """null: all queues of the tenant."""
    as_of: str
    points: list[Point]
    """One per minute, oldest first; the last is the current minute."""


class SourceTested(TypedDict):
    """What came of looking at a source, without taking a message."""

    ok: bool
    error: str | None
    lag: int | None
    oldest_age_seconds: float | None
    duration_seconds: float


class StatusOut(TypedDict):
    version: str
    replicas: list[dict[str, Any]]
    queues: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    database: dict[str, Any]
    alarms: list[dict[str, Any]]
    """Problems that need an operator, the most severe first."""


class TenantLimitsOut(TypedDict):
    """The tenant's limits over all its queues."""

    max_concurrency: int | None
    rate: RateShown | None
    granted_max_concurrency: NotRequired[int]
    """The operator's limit for this tenant, if any. The lower one applies."""


class TestBody(TypedDict):
    payload: NotRequired[Any]
    """Sent byte for byte. Without it: the first of the `examples` in the schema of a queue that delivers here, else
    `{"test": true}`."""


class TestReceived(TypedDict):
    status: int
    headers: dict[str, str]
    body: str | None
    truncated: bool


class TestSent(TypedDict):
    url: str
    headers: dict[str, str]
    body: str | None


class TestOut(TypedDict):
    """The result of a signed test request. It does not count in any statistics."""

    sent: TestSent
    received: TestReceived | None
    outcome: str
    error: str | None
    duration_seconds: float
    content_hidden: NotRequired[Literal[True]]
    """`true`: the key may not read content, so all of it is null. Absent otherwise."""


class TriggerBody(TypedDict):
    payload: NotRequired[Any]
    """Any JSON (I-JSON, at most 128 levels deep). Overrides the schedule's."""
    overlap: NotRequired[Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] | None]
    """Overrides the schedule's."""


class WhyQueue(TypedDict):
    """Why a queue does not move. What does not apply is absent."""

    queue: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    verdict: str
    """One sentence."""
    blockers: list[Blocker]
    """What holds for the task that comes first, in the order in which a claim meets it."""
    ready: int
    """Counted to 1,000,000."""
    running: int
    first: NotRequired[str]
    """The task that comes first."""
    next_run_at: NotRequired[str]
    """When a scheduled task is due, if none is ready."""
    starts_per_minute: float
    """Over the last five minutes."""
    drains_about: NotRequired[str]
    """When nothing is ready any more, if all goes on as it does. Absent if it would not drain."""
    as_of: str


class WhyScheduleOut(TypedDict):
    """Why a schedule fired, or did not. What does not apply is absent."""

    schedule: str
    """1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"""
    verdict: str
    """One sentence."""
    at: NotRequired[str]
    """The instant that was asked about."""
    next: NotRequired[NextStep]
    """What can be done about it."""
    fires_next: NotRequired[str]
    """Absent if it never fires again, or is paused."""
    paused_at: NotRequired[str]
    as_of: str
    row: NotRequired[RunOut]
    """The row of the ledger that covers the instant; without `at`, the newest."""


class WhyTask(TypedDict):
    """Why a task does not start, who has it, or how it ended. What does not apply is absent."""

    task: str
    state: State
    verdict: str
    """One sentence."""
    blockers: list[Blocker]
    """All that hold, in the order in which a claim meets them; the first is `waiting_for`."""
    ahead: NotRequired[int]
    """Ready tasks of its lane, or of its key, that come first; 10,000: or more."""
    starts_about: NotRequired[str]
    """If all goes on as it does. Absent if nothing tells."""
    running: NotRequired[RunningOut]
    reason: NotRequired[Reason]
    ended_at: NotRequired[str]
    by: NotRequired[ByHand]
    """Whose hand ended it, if it was somebody's."""
    attempts: NotRequired[list[str]]
    """Of an ended task: a line each, the newest first."""
    actions: NotRequired[list[NextStep]]
    """What can be done now."""
    content_hidden: NotRequired[Literal[True]]
    """The key does not read content: errors and progress are left out."""
    as_of: str
