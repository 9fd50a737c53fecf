"""What comes back from a handler: a full answer or none, and whether the answer names follow-up work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NoAnswerOutcome = Literal["timeout", "unreachable", "too_large", "egress_denied", "failed"]

FOLLOWUPS_TYPE = "application/vnd.sluice.tasks+json"
"""The media type of an answer that names follow-up work."""
MAX_FOLLOWUP_BYTES = 4_194_304
"""As much of such an answer as is kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A full answer of a handler: the body has ended, or as much of it as is kept has come (`truncated`)."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    outcome: NoAnswerOutcome
    error: str


def is_followups(answer: Answer) -> bool:
    return heads_followups(answer.status, answer.headers)


def heads_followups(status: int, headers: Mapping[str, str]) -> bool:
    """Whether this head, its names in lower case, stands above follow-up work; parameters of the type do not matter."""
    if not 200 <= status <= 299:
        return False
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FOLLOWUPS_TYPE
