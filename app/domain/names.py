"""Names of queues, handlers and tenants."""

import re

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"
NAME_RULE = "1-100 of a-z 0-9 . _ -, starting with a letter or digit"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
