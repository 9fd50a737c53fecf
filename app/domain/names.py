"""Names of queues, handlers and tenants."""

import re
from typing import Annotated

from msgspec import Meta

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
NAME_RULE = "1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Name = Annotated[
    str,
    Meta(pattern=NAME_PATTERN[:-1] + r"\Z", description=NAME_RULE, extra={"rule": f"is not a name ({NAME_RULE})"}),
]
"""A name in a body. Python's `$` also matches before a final newline, so the pattern ends in `\\Z`, which the document shows as
`$`."""


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
