"""Messages about invalid cron expressions, for their authors."""

import re

FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_EXPECTED = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L (the last day) or LW (the last weekday)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday), 5L (the last Friday) or 5#2 (the second Friday)",
}
_BACKWARDS = re.compile(r"(\w+)-(\w+)(?:/\d+)?")
_QUOTED = 60
"""How many characters of an expression a message quotes."""
NEVER = "never fires: no date has this day in these months"


def wrong_count(fields: list[str], *, seconds: bool) -> str:
    """Return the message for an expression with the wrong number of fields."""
    said = quoted(" ".join(fields))
    if not fields:
        return "must not be empty"
    if fields[0].startswith("@"):
        return f"{said} is not an alias; use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually"
    if fields[0].lower() == "every":
        return f"{said} is not an interval; write `every 15 minutes`, with a whole number of seconds, minutes, hours, days or weeks"
    if len(fields) == 6 and not seconds:
        return "has six fields, expected five; set `seconds: true` if the first is seconds"
    if len(fields) == 7:
        return "has seven fields; cron has no year field, so use start_at and end_at to bound a schedule"
    expected = "five, or six that begin with seconds" if seconds else "five"
    count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
    return f"has {count}, expected {expected} (minute hour day-of-month month day-of-week)"


def wrong_field(name: str, text: str, names: list[str]) -> str:
    """Return the message for a field that does not parse; `names` are those allowed in it."""
    said = f"{name} {quoted(text)}"
    if "?" in text:
        return f"{said}: `?` is not supported; write `*`"
    if name == "day-of-month" and re.search(r"\dW", text, re.IGNORECASE):
        return f"{said}: the weekday nearest to a day (`W`) is not supported"
    if name == "day-of-week" and text.upper() == "L":
        return f"{said}: give a day, such as 5L for the last Friday of the month"
    if re.search(r"/0*(?!\d)", text):
        return f"{said}: a step must be at least 1"
    backwards = _runs_backwards(text, names)
    if backwards is not None:
        sunday = "; Sunday at the end of a range is 7" if name == "day-of-week" else ""
        return f"{said}: the range {backwards} runs backwards{sunday}"
    return f"{said}: expected {_EXPECTED[name]}, `*`, lists, ranges or steps of them"


def _runs_backwards(text: str, names: list[str]) -> str | None:
    for term in text.split(","):
        match = _BACKWARDS.fullmatch(term)
        if match is not None:
            low, high = (number_of(end, names) for end in match.groups())
            if low is not None and high is not None and low > high:
                return f"{match[1]}-{match[2]}"
    return None


def number_of(text: str, names: list[str]) -> int | None:
    """Return the value of a name or of a short number in a field; None for anything else."""
    if text.upper() in names:
        return names.index(text.upper())
    return int(text) if re.fullmatch(r"\d{1,2}", text, re.ASCII) else None


def quoted(text: str) -> str:
    return f"`{text}`" if len(text) <= _QUOTED else f"`{text[:_QUOTED]}…`"
