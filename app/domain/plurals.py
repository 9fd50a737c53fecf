"""Counts in sentences."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `2 tasks`, `1,000 tasks`; `plural` where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"
