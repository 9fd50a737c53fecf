"""What bridges carry of a task beside its payload, under the names that its consumers find."""

import msgspec

from app.delivery.kinds import Call


def carried_by(call: Call) -> dict[str, str]:
    """Return it as texts, without what the task does not have. They are at most nine: a message of SQS has room for ten."""
    options = call.options
    carried = {
        "sluice-task-id": call.task_id,
        "sluice-queue": call.queue,
        "sluice-attempt": str(call.attempt),
        "sluice-type": options.type,
        "sluice-headers": msgspec.json.encode(options.headers).decode() if options.headers else None,
        "sluice-content-type": options.content_type,
        "x-correlation-id": options.correlation_id,
        "traceparent": call.traceparent,
        "tracestate": call.tracestate,
    }
    return {name: value for name, value in carried.items() if value}
