"""How a command of the client ends when it did not do what it was asked."""

from typing import Any

REFUSED = 1
USAGE = 2
UNREACHABLE = 3


class Failure(Exception):
    """`text` goes to stderr and says what to do next; `code` is the exit code."""

    def __init__(self, text: str, code: int = REFUSED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.problem = problem
        """What the service has answered, if that is why."""
