"""How a command ends when it could not do what it was asked to do."""

from typing import Any

REFUSED = 1
USAGE = 2
UNREACHABLE = 3
UNSUCCESSFUL = 4
NOT_ENDED = 5


class Failure(Exception):
    """`text` goes to stderr and says what to do next; `code` is the exit code."""

    def __init__(self, text: str, code: int = REFUSED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.problem = problem
        """The service's response, if it rejected the request."""
