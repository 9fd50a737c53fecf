"""Operations that move the messages of a dead-letter queue: StartMessageMoveTask and its like."""

from typing import Any

from app.compat.sqs import model
from app.compat.sqs.calls import Call, Operation
from app.compat.sqs.errors import SqsError
from app.domain.actions import ActionView
from app.domain.errors import Refusal
from app.domain.instants import parse_instant
from app.service import actions, moves

STATUSES = {"running": "RUNNING", "done": "COMPLETED", "cancelled": "CANCELLED"}


def _named(call: Call, arn: str, parameter: str) -> str:
    """Return the name of the queue with this ARN. Raises SqsError."""
    name = call.name_in_arn(arn)
    if name is None:
        if not arn.startswith("arn:aws:sqs:"):
            raise SqsError(
                "InvalidParameterValue", f"You must use this format to specify the {parameter}: arn:aws:sqs:…"
            )
        raise _not_there(parameter)
    return name


def _not_there(parameter: str) -> SqsError:
    return SqsError(
        "ResourceNotFoundException", f"The resource that you specified for the {parameter} parameter doesn't exist."
    )


async def start_message_move_task(call: Call, given: model.StartMessageMoveTask) -> dict[str, Any]:
    source, target = _named(call, given.source_arn, "SourceArn"), None
    if given.destination_arn is not None:
        target = _named(call, given.destination_arn, "DestinationArn")
    if target == source:
        raise SqsError("InvalidParameterValue", "The source and the destination must be different queues.")
    rate = given.max_number_of_messages_per_second
    try:
        task = await moves.start(call.core, call.caller, source, target, None if rate is None else float(rate))
    except moves.NotDeadLetters:
        raise SqsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.") from None
    except moves.AlreadyMoving:
        raise SqsError(
            "UnsupportedOperation",
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
        ) from None
    except Refusal as refusal:
        if refusal.code != "queue_not_found":
            raise
        raise _not_there("SourceArn or DestinationArn") from refusal
    return {"TaskHandle": task}


async def cancel_message_move_task(call: Call, given: model.CancelMessageMoveTask) -> dict[str, Any]:
    try:
        view = await moves.cancel(call.core, call.caller, given.task_handle)
    except moves.NotThere:
        raise SqsError("ResourceNotFoundException", "Task does not exist, or it has ended.") from None
    return {"ApproximateNumberOfMessagesMoved": view.done}


async def list_message_move_tasks(call: Call, given: model.ListMessageMoveTasks) -> dict[str, Any]:
    source = _named(call, given.source_arn, "SourceArn")
    try:
        found = await moves.list_latest(call.core, call.caller, source, given.max_results or 1)
    except Refusal as refusal:
        if refusal.code != "queue_not_found":
            raise
        raise _not_there("SourceArn") from None
    return {"Results": [_shown(call, view) for view in found]}


def _shown(call: Call, view: ActionView) -> dict[str, Any]:
    started = parse_instant(view.created_at)
    assert started is not None, "it is formatted by ourselves"
    shown: dict[str, Any] = {
        "Status": STATUSES[view.state],
        "SourceArn": call.arn(view.filter["queue"]),
        "ApproximateNumberOfMessagesMoved": view.done,
        "ApproximateNumberOfMessagesToMove": view.matched,
        "StartedTimestamp": int(started.timestamp() * 1000),
    }
    if view.state == "running":
        shown["TaskHandle"] = view.id
    if "to" in view.filter:
        shown["DestinationArn"] = call.arn(view.filter["to"])
    if view.rate_per_second is not None:
        shown["MaxNumberOfMessagesPerSecond"] = int(view.rate_per_second)
    if view.errors and view.state == "done":
        shown["Status"] = "FAILED"
        shown["FailureReason"] = view.errors[0].detail
    return shown


OPERATIONS: dict[str, Operation] = {
    "CancelMessageMoveTask": Operation(model.CancelMessageMoveTask, "manage", cancel_message_move_task, actions.cancel),
    "ListMessageMoveTasks": Operation(model.ListMessageMoveTasks, "read", list_message_move_tasks),
    "StartMessageMoveTask": Operation(model.StartMessageMoveTask, "manage", start_message_move_task, actions.start),
}
"""By name."""
