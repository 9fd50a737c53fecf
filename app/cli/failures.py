"""How a command of the client ends when it did not do what it was asked."""

REFUSED = 1
USAGE = 2
UNREACHABLE = 3


class Failure(Exception):
    """`text` goes to stderr and says what to do next; `code` is the exit code."""

    def __init__(self, text: str, code: int = REFUSED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
