"""Counts in sentences."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 task`, `2 tasks`, `1,000 tasks`; give `plural` if it is not formed with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"
