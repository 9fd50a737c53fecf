"""Every error code: its HTTP status, its title, what causes it, and what the caller does about it.

`docs/reference/errors.md` is generated from this table. A code never changes its meaning.
"""

from typing import NamedTuple


class Code(NamedTuple):
    status: int
    title: str
    """The problem's `title`."""
    cause: str
    remedy: str


CODES: dict[str, Code] = {
    "malformed": Code(
        400,
        "The request cannot be parsed",
        "The HTTP, a header or the JSON of the body cannot be parsed. JSON must be I-JSON: UTF-8, no duplicate names, no NaN.",
        "Correct what `detail` describes.",
    ),
    "unauthenticated": Code(
        401,
        "A valid API key is required",
        "The request has no API key, or one that is unknown, has expired or has been revoked; a lease route got no lease token.",
        "Send `Authorization: Bearer slk_…`, or `Sluice-Lease-Token` to a lease route.",
    ),
    "forbidden": Code(
        403,
        "The API key does not permit this",
        "The route needs a higher scope than the API key has, or the contents that are hidden from it; or a key would reach further"
        " than the one that creates it.",
        "Use a key with what `detail` names: `sluice keys create --scope …`.",
    ),
    "host_refused": Code(
        403,
        "Without authentication, only requests from this machine are served",
        "Authentication is off, and the request was forwarded by a proxy, or its `Host` or `Origin` is not a loopback address.",
        "Call Sluice on its own machine under `127.0.0.1` or `localhost`, or turn on API keys.",
    ),
    "not_found": Code(
        404,
        "Route not found",
        "No route has this path, or the key is confined to queues and the route is about its whole tenant.",
        "Check the path; `/docs` lists all routes.",
    ),
    "source_not_found": Code(
        404,
        "Source not found",
        "The tenant has no source with this name.",
        "Check the name, or create it with `PUT /sources/{name}`.",
    ),
    "handler_not_found": Code(
        404,
        "Handler not found",
        "The tenant has no handler with this name.",
        "Check the name, or create it with `PUT /handlers/{name}`.",
    ),
    "queue_not_found": Code(
        404,
        "Queue not found",
        "The tenant has no queue with this name.",
        "Check the name, or create it with `PUT /queues/{name}`.",
    ),
    "task_not_found": Code(
        404,
        "Task not found",
        "The tenant has no task with this id, or the task's retention is over.",
        "Check the id. To keep ended tasks longer, raise the queue's `retention`.",
    ),
    "batch_not_found": Code(
        404,
        "Batch not found",
        "The tenant has no batch with this id, or its retention is over.",
        "Check the id. To keep completed batches longer, raise the queue's `retention`.",
    ),
    "action_not_found": Code(
        404,
        "Action not found",
        "The tenant has no action with this id, or it ended more than 30 days ago.",
        "Check the id; `GET /actions` lists the actions.",
    ),
    "schedule_not_found": Code(
        404,
        "Schedule not found",
        "The tenant has no schedule with this name.",
        "Check the name, or create it with `PUT /schedules/{id}`.",
    ),
    "tenant_not_found": Code(
        404,
        "Tenant not found",
        "There is no tenant with this name.",
        "Check the name, or create the tenant with its first key: `sluice keys create --tenant NAME`.",
    ),
    "limit_not_found": Code(
        404,
        "Limit not found",
        "The tenant has no limit with this name.",
        "Check the name, or create it with `PUT /limits/{name}`.",
    ),
    "key_not_found": Code(
        404,
        "API key not found",
        "The tenant has no API key with this id.",
        "Check the id; `GET /keys` lists them.",
    ),
    "method_not_allowed": Code(
        405,
        "Method not allowed",
        "The path exists, but not with this method.",
        "Use a method that the `Allow` header lists.",
    ),
    "request_timeout": Code(
        408,
        "The request did not arrive in time",
        "The headers or the body arrived too slowly: after its first 30 seconds, a body must arrive at 64 KiB per second or more.",
        "Send the request again, smaller or over a faster connection.",
    ),
    "lease_lost": Code(
        409,
        "The lease has been lost",
        "The lease has expired or been settled otherwise, or the token belongs to another task.",
        "Stop working on the task; another attempt may have begun. Renew earlier, or ask for a longer lease.",
    ),
    "task_cancelled": Code(
        409,
        "The task has been cancelled",
        "The task was cancelled while it was leased.",
        "Stop working on the task; there is nothing to settle.",
    ),
    "task_ended": Code(
        409,
        "The task has already ended",
        "The task is in a final state that does not allow this, such as cancelling one that succeeded.",
        "Read the task to see how it ended. To run the work again, retry a dead or cancelled task, or enqueue a new one.",
    ),
    "task_not_editable": Code(
        409,
        "The task's state does not allow this",
        "The task is running, or another unfinished task holds its `unique_key`.",
        "Wait until that task has ended, or cancel it, then try again.",
    ),
    "queue_is_push": Code(
        409,
        "The queue delivers to a handler",
        "Workers can only lease tasks from queues without a handler.",
        "Use a queue without a handler.",
    ),
    "queue_in_use": Code(
        409,
        "The queue is in use",
        "Unfinished tasks or schedules name the queue.",
        "Delete the schedules, purge the queue and wait for its running tasks, then delete it again.",
    ),
    "handler_in_use": Code(
        409,
        "The handler is in use",
        "Queues, schedules or unfinished tasks name the handler.",
        "Give them another handler or delete them, then delete the handler again.",
    ),
    "limit_in_use": Code(
        409,
        "The limit is in use",
        "A queue, a handler, a schedule or an unfinished task names the limit, so it cannot be deleted, and `keyed` cannot change.",
        "Take the limit out of what `detail` names, or wait for those tasks to end, then send the request again.",
    ),
    "encryption_unavailable": Code(
        422,
        "Encryption is not set up",
        "A queue is to encrypt the content of its tasks, but Sluice has no encryption key.",
        "Set `SLUICE_ENCRYPTION_KEY` on every replica, then send the request again.",
    ),
    "batch_sealed": Code(
        409,
        "The batch is sealed",
        "The batch is sealed or cancelled, so it takes no more tasks.",
        "Create another batch.",
    ),
    "etag_mismatch": Code(
        412,
        "The precondition failed",
        "The definition is not the one in `If-Match`, or exists despite `If-None-Match: *`, or the plan is outdated.",
        "Read the definition, or plan again, and decide whether your change still applies.",
    ),
    "too_large": Code(
        413,
        "The request is too large",
        "The body, payload, result, progress or page of follow-up tasks exceeds its limit.",
        "Send less; `detail` names the limit.",
    ),
    "unsupported_media_type": Code(
        415,
        "The content type must be application/json",
        "The request has a body without `Content-Type: application/json`.",
        "Set the header; with curl, use `--json`.",
    ),
    "invalid": Code(
        422,
        "The request is invalid",
        "The JSON is well-formed, but a field is unknown, missing or has an invalid value.",
        "Correct each field that `errors` points to.",
    ),
    "idempotency_mismatch": Code(
        422,
        "The idempotency key was used for a different request",
        "The same key was used before, with a different payload or different options, or for another action.",
        "Send exactly what you sent the first time, or use a new key for a new task or action.",
    ),
    "egress_denied": Code(
        422,
        "The address is not allowed",
        "The URL, of a handler or of a task's `target`, has an address that is neither public nor in `SLUICE_EGRESS_ALLOW`.",
        "Use another address, or have the operator list this one.",
    ),
    "bridge_unavailable": Code(
        422,
        "The service lacks what this kind of bridge needs",
        "A library of the bridge is not installed where the service runs: it is an extra, such as `sluice-queue[redis]`.",
        "Have the operator install the extra that `detail` names, on every replica.",
    ),
    "payload_schema_mismatch": Code(
        422,
        "The payload does not match the queue's schema",
        "The payload violates the queue's `payload_schema`.",
        "Correct the payload where `errors` points to, or change the schema.",
    ),
    "queue_full": Code(
        429,
        "The queue is full",
        "The queue already holds `max_depth` scheduled and ready tasks.",
        "Wait for `Retry-After` seconds and send the request again, or raise `max_depth`.",
    ),
    "key_full": Code(
        429,
        "The key is full",
        "The queue already holds as many scheduled and ready tasks with this key as the `max_depth` of its `key` allows.",
        "Wait for `Retry-After` seconds and send the request again, or raise that `max_depth`.",
    ),
    "rate_limited": Code(
        429,
        "Too many requests",
        "Reserved: this version has no rate limits and never responds with this code.",
        "Wait for `Retry-After` seconds and send the request again.",
    ),
    "headers_too_large": Code(
        431,
        "The headers are too large",
        "The request line and headers are too large, or there are too many headers.",
        "Send fewer or shorter headers.",
    ),
    "internal": Code(
        500,
        "Internal error",
        "Sluice has a bug. Its log has the details (`request_failed`).",
        "Send the request again with the same idempotency key. If it keeps failing, report it.",
    ),
    "not_implemented": Code(
        501,
        "The request uses a feature that is not implemented",
        "The request has a transfer coding other than `chunked`.",
        "Send the body with `Content-Length`, or `chunked`.",
    ),
    "unavailable": Code(
        503,
        "Temporarily unavailable",
        "The database does not respond, the replica is stopping, or the tenant is at one of its limits for shared resources.",
        "Wait for `Retry-After` seconds and send the request again, with the same idempotency key.",
    ),
}
