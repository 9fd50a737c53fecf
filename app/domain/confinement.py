"""Patterns of queue names, which confine a key to these queues. `*` stands for any characters, none included."""

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

MAX_PATTERNS = 100
PATTERN = r"^[A-Za-z0-9*][A-Za-z0-9._*-]{0,99}\Z"


@lru_cache(maxsize=1000)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    # fnmatch translates several stars so that they never backtrack; of its other signs, none is in PATTERN
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


def matches(patterns: tuple[str, ...], name: str) -> bool:
    return _compiled(patterns).match(name) is not None


def within(inner: Sequence[str], outer: tuple[str, ...]) -> bool:
    """Return whether each inner pattern stands only for names that one outer pattern stands for.

    A `*` is no character of a name, so only a `*` of the outer pattern matches it.
    """
    return all(matches(outer, pattern) for pattern in inner)


def like_patterns(patterns: Sequence[str]) -> list[str]:
    """Return the same patterns in SQL's terms, for `LIKE ANY`."""
    return [pattern.replace("_", r"\_").replace("*", "%") for pattern in patterns]
