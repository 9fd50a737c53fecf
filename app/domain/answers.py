"""What a handler returns: a complete answer or none, and whether the answer names follow-up work."""

from collections.abc import Mapping
from typing import Literal

import msgspec

NoAnswerOutcome = Literal["timeout", "unreachable", "too_large", "egress_denied", "failed"]

FOLLOWUPS_TYPE = "application/vnd.sluice.tasks+json"
"""The media type of answers that name follow-up work."""
MAX_RESULT_BYTES = 65_536
"""How much of other answers is kept as the task's result."""
MAX_FOLLOWUP_BYTES = 4_194_304
"""How much of such an answer is kept."""


class Answer(msgspec.Struct, frozen=True):
    """A complete answer from a handler. With `truncated`, the body was longer than what is kept."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    truncated: bool = False
    error: str | None = None
    """What a bridge's server says is wrong; None: only the status says it."""
    fatal: bool = False
    """A bridge can never take this task, whatever the handler's fatal_statuses are."""
    unsent: bool = False
    """Found out before anything was sent: the status is what the server would have said."""


class NoAnswer(msgspec.Struct, frozen=True):
    outcome: NoAnswerOutcome
    error: str


def is_followups(answer: Answer) -> bool:
    return heads_followups(answer.status, answer.headers)


def heads_followups(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether this head announces follow-up work. Header names are lower case; media type parameters are ignored."""
    if not 200 <= status <= 299:
        return False
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FOLLOWUPS_TYPE
