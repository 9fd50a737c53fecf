"""One answer for a group of tasks: what it means for each of them.

A 2xx without `sluice-hold` may carry a document, and only then do the tasks fare differently:

- no body, or `{"failures": []}`: all have succeeded;
- `{"failures": [{"id": …, "error"?, "retry"?, "retry_after_seconds"?}], "results"?: {id: any}}`: these have failed, and the others
  have succeeded, each with the result under its id;
- `{"batchItemFailures": [{"itemIdentifier": id}]}`, as functions of AWS Lambda answer: the same, without errors and results.

Any other body fails all of them, and the error of each says why: when in doubt, a task runs again. That includes an id that the
group does not have, an id that is given twice, or both as failed and with a result, an unknown field, and follow-up work. Every
other answer means for each task what it means for one alone (domain/outcomes.py).
"""

from collections.abc import Collection
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.domain.answers import FOLLOWUPS_TYPE, MAX_FOLLOWUP_BYTES, MAX_RESULT_BYTES, Answer, NoAnswer, is_followups
from app.domain.bodies import field_errors
from app.domain.errors import Refusal
from app.domain.ijson import MAX_DEPTH, nests_deeper, parse_ijson
from app.domain.outcomes import MAX_ERROR, Settlement, Terms, decide_failure

GROUP_TYPE = "application/vnd.sluice.group+json"
"""The media type of a request that carries a group."""
MAX_GROUP_BYTES = 4_194_304
"""How much the tasks of one request hold together, in bytes; a larger task gets a request of its own."""
MAX_GROUP_ANSWER_BYTES = MAX_FOLLOWUP_BYTES
"""The largest answer to a group, in bytes."""
UNEXPLAINED = "the handler named this task among the failures of its group"
_JSON = {"content-type": "application/json"}


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """What the document of an answer says of a task that has failed."""

    id: str
    error: str | None = None
    retry: bool = True
    retry_after_seconds: Annotated[float, Meta(ge=0)] | None = None


class GroupFault(Exception):
    """Raised if an answer says nothing certain about its tasks; its text completes "the handler answered 200, but …"."""


class _Document(Struct, forbid_unknown_fields=True):
    failures: list[Failure]
    results: dict[str, msgspec.Raw] = {}


class _ItemFailure(Struct, rename="camel", forbid_unknown_fields=True):
    item_identifier: str


class _LambdaDocument(Struct, rename="camel", forbid_unknown_fields=True):
    batch_item_failures: list[_ItemFailure]


def is_shared(answer: Answer | NoAnswer) -> bool:
    """Return whether this is an answer that share_out() reads."""
    return isinstance(answer, Answer) and 200 <= answer.status <= 299 and "sluice-hold" not in answer.headers


def share_out(answer: Answer, ids: Collection[str]) -> dict[str, Answer | Failure]:
    """Return what a 2xx for the group of these tasks means for each: its failure, or the answer it would have had alone.

    Raises GroupFault.
    """
    document = _document(answer)
    known = frozenset(ids)
    shares: dict[str, Answer | Failure] = dict.fromkeys(ids, Answer(answer.status, {}, b""))
    failed: set[str] = set()
    for failure in document.failures:
        if failure.id not in known:
            raise GroupFault(f"its failures name {failure.id[:100]!r}, which is not in the group")
        if failure.id in failed:
            raise GroupFault(f"its failures name {failure.id} twice")
        failed.add(failure.id)
        shares[failure.id] = failure
    for task_id, result in document.results.items():
        if task_id not in known:
            raise GroupFault(f"its results name {task_id[:100]!r}, which is not in the group")
        if task_id in failed:
            raise GroupFault(f"it has both a failure and a result of {task_id}")
        text = bytes(result)
        if nests_deeper(text):
            raise GroupFault(f"the result of {task_id} is nested deeper than {MAX_DEPTH} levels")
        shares[task_id] = Answer(answer.status, _JSON, text[:MAX_RESULT_BYTES], len(text) > MAX_RESULT_BYTES)
    return shares


def _document(answer: Answer) -> _Document:
    if is_followups(answer):
        raise GroupFault(f"a group cannot be answered with follow-up work ({FOLLOWUPS_TYPE})")
    if not answer.body:
        return _Document([])
    if answer.truncated or len(answer.body) > MAX_GROUP_ANSWER_BYTES:
        raise GroupFault(f"its body has more than {MAX_GROUP_ANSWER_BYTES} bytes")
    try:
        value = parse_ijson(answer.body)
    except Refusal as refusal:
        raise GroupFault(f"its body is not a document of a group: {refusal.detail}") from None
    of_lambda = isinstance(value, dict) and "batchItemFailures" in value
    try:
        if of_lambda:
            found = msgspec.json.decode(answer.body, type=_LambdaDocument)
            return _Document([Failure(item.item_identifier) for item in found.batch_item_failures])
        return msgspec.json.decode(answer.body, type=_Document)
    except msgspec.ValidationError as error:
        [fault] = field_errors(str(error))
        where = f"{fault.pointer}: " if fault.pointer else ""
        raise GroupFault(f"its body is not a document of a group: {where}{fault.detail}") from None


def decide_share(failure: Failure, answer: Answer, terms: Terms) -> Settlement:
    """Return what a failure in the document means."""
    return decide_failure(
        terms,
        (failure.error or UNEXPLAINED)[:MAX_ERROR],
        retryable=failure.retry,
        retry_after_seconds=failure.retry_after_seconds or 0.0,
        stopped="stopped_by_handler",
        status=answer.status,
    )
