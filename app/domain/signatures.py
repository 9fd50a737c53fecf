"""The signature of an error: what is left of its text when the parts that differ from task to task are replaced.

Errors with one signature are one problem to whoever looks at them. As in error trackers (Sentry's message parametrisation), ids and
numbers are replaced by marks, and so is what stands in quotes, which is usually a value.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.domain.bodies import ContentHidden
from app.domain.ids import Uuid
from app.domain.instants import Instant, format_instant

LONGEST = 200
"""In characters."""
TEXT, ID, NUMBER = "<text>", "<id>", "#"
_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
# no quote crosses another mark that opens one, so that a text full of them still takes linear time
_QUOTED = r"\"[^\"]*\"|`[^`]*`|“[^“”]*”|(?<!\w)'[^']*'(?!\w)"
# letters and digits in one word of at least eight: hexadecimal ids, ULIDs, prefixed keys such as cus_9s6XKzkNRiz8i3
_WORD = r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{8,}(?![A-Za-z0-9_-])"
_NUMBER = r"\d+(?:[.,:]\d+)*"
_INSTANT = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_VARIES = re.compile(f"(?P<text>{_QUOTED})|(?P<instant>{_INSTANT})|(?P<id>{_UUID}|{_WORD})|(?P<number>{_NUMBER})")
_MARKS = {"text": TEXT, "id": ID, "instant": NUMBER, "number": NUMBER}


def signature(error: str) -> str:
    """Return the signature of an error: one line of at most LONGEST characters. That of a signature is itself."""
    before, text = None, " ".join(error.split())
    while text != before:  # a mark, or the cut, may complete quotes; each round takes digits, quotes or characters away
        before, text = text, _VARIES.sub(lambda found: _MARKS[found.lastgroup or ""], text)[:LONGEST].rstrip()
    return text


@dataclass(frozen=True, slots=True)
class Failure:
    """Tasks that have failed with one error."""

    error: str
    count: int
    first_at: datetime
    latest_at: datetime
    task_id: str
    """Of the newest."""
    dead: bool
    """Or they are unfinished."""


class ErrorExample(Struct):
    task: Uuid
    error: str | None


class ErrorGroup(Struct, kw_only=True):
    """Tasks whose last errors have one signature."""

    signature: Annotated[
        str | None, Meta(description="The error with ids, numbers and what stands in quotes replaced.")
    ]
    count: Annotated[int, Meta(description="Tasks that failed so, unfinished ones included.")]
    dead: Annotated[int, Meta(description="Of these, how many are dead.")]
    first_seen: Instant
    last_seen: Instant
    example: Annotated[ErrorExample, Meta(description="The newest.")]
    content_hidden: ContentHidden = UNSET


def grouped(failures: Iterable[Failure]) -> list[ErrorGroup]:
    """Return failures by signature, the most frequent first."""
    by_signature: dict[str, list[Failure]] = {}
    for failure in failures:
        by_signature.setdefault(signature(failure.error), []).append(failure)
    groups = []
    for text, alike in by_signature.items():
        newest = max(alike, key=lambda failure: failure.latest_at)
        groups.append(
            ErrorGroup(
                signature=text,
                count=sum(failure.count for failure in alike),
                dead=sum(failure.count for failure in alike if failure.dead),
                first_seen=format_instant(min(failure.first_at for failure in alike)),
                last_seen=format_instant(newest.latest_at),
                example=ErrorExample(newest.task_id, newest.error),
            )
        )
    return sorted(groups, key=lambda group: (-group.count, group.signature))
