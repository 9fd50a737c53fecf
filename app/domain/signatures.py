"""The signature of an error: what is left of its text when the parts that differ from task to task are replaced.

Errors with one signature are one problem to whoever looks at them. As in error trackers (Sentry's message parametrisation), ids and
numbers are replaced by marks, and so is what stands in quotes, which is usually a value.
"""

import re

LONGEST = 200
"""In characters."""
TEXT, ID, NUMBER = "<text>", "<id>", "#"
_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_QUOTED = r"\"[^\"]*\"|`[^`]*`|“[^”]*”|(?<!\w)'[^']*'(?!\w)"
# letters and digits in one word of at least eight: hexadecimal ids, ULIDs, prefixed keys such as cus_9s6XKzkNRiz8i3
_WORD = r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{8,}(?![A-Za-z0-9_-])"
_NUMBER = r"\d+(?:[.,:]\d+)*"
_VARIES = re.compile(f"(?P<text>{_QUOTED})|(?P<id>{_UUID}|{_WORD})|(?P<number>{_NUMBER})")
_MARKS = {"text": TEXT, "id": ID, "number": NUMBER}


def signature(error: str) -> str:
    """Return the signature of an error: one line of at most LONGEST characters. That of a signature is itself."""
    flat = " ".join(error.split())
    return _VARIES.sub(lambda found: _MARKS[found.lastgroup or ""], flat)[:LONGEST].rstrip()
