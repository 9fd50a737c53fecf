"""What an outcome is on the wire: an answer, a share of the answer to a group, or what a lease is settled with."""

import json
import logging
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sluice_client.outcomes import Failed, Outcome, RetryAfter, Skipped, Succeeded, bounded

MAX_RESULT_BYTES = 65_536
"""How much of a result Sluice stores."""
FOLLOW_UPS_TYPE = "application/vnd.sluice.tasks+json"

Verb = Literal["complete", "fail", "release"]

log = logging.getLogger("sluice_client.tasks")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(status: int, value: object, **headers: str) -> Reply:
    """Return a response with JSON; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, _encoded(value), {"content-type": "application/json", **named})


def reply(outcome: Outcome) -> Reply:
    """Return the response to a task's own request.

    A failure is 500, so that a breaker sees it; one that is final is 422 with `sluice-retry: no`, which is the task's fault and
    not the service's. Not 503: where a handler has a breaker, that would give the attempt back.
    """
    try:
        match outcome:
            case Succeeded() if outcome.follows:
                return Reply(200, _encoded(_page(outcome)), {"content-type": FOLLOW_UPS_TYPE})
            case Succeeded() | Skipped():
                return answer(200, outcome.result)
            case RetryAfter() if outcome.seconds > 0:
                return answer(500, {"error": outcome.error}, retry_after=str(math.ceil(min(outcome.seconds, 1e9))))
            case RetryAfter():
                return answer(500, {"error": outcome.error})
            case Failed():
                problem: dict[str, object] = {"error": outcome.error}
                if outcome.errors:
                    problem["errors"] = [dict(error) for error in outcome.errors]
                return answer(422, problem, sluice_retry="no")
    except (TypeError, ValueError) as error:
        return reply(_not_json(error))


def group_reply(outcomes: Mapping[str, Outcome]) -> Reply:
    """Return the response to a group: which of its tasks have failed, and the results of the others."""
    failures: list[dict[str, object]] = []
    results: dict[str, Any] = {}
    for task_id, outcome in outcomes.items():
        if isinstance(outcome, Succeeded) and outcome.follows:
            outcome = RetryAfter(
                "a task of a group cannot have follow-up work: let its handler take one task at a time"
            )
        if isinstance(outcome, (Succeeded, Skipped)):
            try:
                _encoded(outcome.result)
            except (TypeError, ValueError) as error:
                outcome = _not_json(error)
        if isinstance(outcome, (Succeeded, Skipped)):
            results[task_id] = outcome.result
        elif isinstance(outcome, RetryAfter):
            failures.append({"id": task_id, "error": outcome.error, "retry_after_seconds": outcome.seconds})
        else:
            failures.append({"id": task_id, "error": outcome.error, "retry": False})
    return answer(200, {"failures": failures, "results": results})


def settlement(outcome: Outcome) -> tuple[Verb, bytes]:
    """Return how a lease is settled: the request's last word and its body."""
    try:
        match outcome:
            case Succeeded() | Skipped():
                return "complete", _completion(outcome)
            case RetryAfter():
                return "fail", _encoded({"error": outcome.error, "retry_after_seconds": min(outcome.seconds, 1e9)})
            case Failed():
                return "fail", _encoded({"error": outcome.error, "retryable": False})
    except (TypeError, ValueError) as error:
        return settlement(_not_json(error))


def refused(status: int, detail: str, errors: Sequence[Mapping[str, object]]) -> Outcome:
    """Return what it means that Sluice refused a completion: as if a handler had answered it (contract, section 5)."""
    where = "; ".join(f"{error.get('pointer')}: {error.get('detail')}" for error in errors)
    text = bounded(f"Sluice refused the result or the follow-up work: {detail}" + (f" ({where})" if where else ""))
    return Failed(text) if status == 413 else RetryAfter(text)


def _page(outcome: Succeeded) -> dict[str, object]:
    page: dict[str, object] = {"result": outcome.result, "tasks": outcome.follow_ups}
    if outcome.next is not None:
        page["next"] = outcome.next
    if outcome.on_complete is not None:
        page["on_complete"] = outcome.on_complete
    return page


def _completion(outcome: Succeeded | Skipped) -> bytes:
    page = _page(outcome) if isinstance(outcome, Succeeded) and outcome.follows else {"result": outcome.result}
    body = _encoded(page)
    if len(body) <= MAX_RESULT_BYTES:  # and so is the result
        return body
    result = _encoded(outcome.result)
    if len(result) > MAX_RESULT_BYTES:
        # a handler's answer is cut by the service, a worker's result is refused
        log.warning("a result has %d bytes; Sluice stores the first %d of it", len(result), MAX_RESULT_BYTES)
        cut = b64encode(result[:MAX_RESULT_BYTES]).decode()
        page |= {"result": cut, "result_encoding": "base64", "result_truncated": True}
        body = _encoded(page)
    return body


def _not_json(error: Exception) -> Failed:
    return Failed(bounded(f"the result cannot be written as JSON: {error}"))


def _encoded(value: object) -> bytes:
    return _ENCODER.encode(value).encode()
