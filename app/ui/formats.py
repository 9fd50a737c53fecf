"""How values look on a page: numbers with their units, instants relative to now, the exact value on hover."""

from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

from markupsafe import Markup, escape

from app.domain.ids import SHORT_ID
from app.domain.instants import parse_instant
from app.domain.views import AttemptView

NOTHING = Markup('<span class="none" aria-label="none">–</span>')
_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None) -> str | Markup:
    """Return `12,345`; a fraction has as many digits as its size deserves."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def rate(per_minute: float) -> str | Markup:
    """Return a rate as `12/min`; nothing for none."""
    return f"{number(per_minute)}/min" if per_minute >= 0.005 else NOTHING


def percent(share: float | None) -> str | Markup:
    """Return a share as `99.8 %`; only the whole is 100 %."""
    if share is None:
        return NOTHING
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share * 100:.3g} %"


def seconds(value: float | None) -> str | Markup:
    """Return a duration in the two units that say enough: `340 ms`, `1.2 s`, `3 min 20 s`, `2 d 4 h`."""
    if value is None:
        return NOTHING
    if value < 0:
        return f"-{seconds(-value)}"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    count, unit, rest, smaller = _units(round(value))
    return f"{count} {unit} {rest} {smaller}" if rest else f"{count} {unit}"


def roughly(value: float) -> str:
    """Return a duration of a second or more in its largest unit alone."""
    count, unit, _, _ = _units(int(value))
    return f"{count} {unit}"


def _units(whole: int) -> tuple[int, str, int, str]:
    """Return how many of the largest unit fit, and how many of the next one into the rest."""
    for (of_one, unit), (of_next, smaller) in pairwise(_UNITS):
        if whole >= of_one:
            count, rest = divmod(whole, of_one)
            return count, unit, rest // of_next, smaller
    return whole, "s", 0, ""


def size(count: int) -> str:
    """Return a number of bytes: `812 B`, `4.2 KiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def when(instant: datetime | str | None, now: datetime) -> Markup:
    """Return the instant relative to `now`, and exactly on hover."""
    moment = parse_instant(instant) if isinstance(instant, str) else instant
    if moment is None:
        return NOTHING
    exact = moment.astimezone(UTC)
    away = (exact - now).total_seconds()
    words = "now" if abs(away) < 1 else f"in {roughly(away)}" if away > 0 else f"{roughly(-away)} ago"
    shown = f"{exact:%Y-%m-%d %H:%M:%S}.{exact.microsecond // 1000:03d} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact.isoformat(), shown, words)


def exactly(instant: datetime | str | None) -> Markup:
    """Return the instant as `2026-11-26 12:22:07 UTC`."""
    moment = parse_instant(instant) if isinstance(instant, str) else instant
    if moment is None:
        return NOTHING
    exact = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S} UTC")


def took(attempt: AttemptView) -> str | Markup:
    """Return how long an attempt took."""
    started, ended = parse_instant(attempt.started_at), parse_instant(attempt.ended_at or "")
    return NOTHING if started is None or ended is None else seconds((ended - started).total_seconds())


@lru_cache(maxsize=4096)
def spark(points: tuple[int, ...]) -> Markup:
    """Return counts by minute as a small drawing, two minutes to a point; its words say how many at most. Empty: nothing."""
    most = max(points, default=0)
    if not most:
        return NOTHING
    pairs = [sum(points[n : n + 2]) for n in range(0, len(points), 2)]
    top = max(pairs)
    line = "L".join(f"{n * 3} {20 - 18 * count / top:.3g}" for n, count in enumerate(pairs))
    end = 3 * (len(pairs) - 1)
    words = f"{sum(points):,} enqueued in {len(points)} min, at most {most:,} in one"
    return Markup(
        '<svg class="spark" viewBox="0 0 {end} 21" preserveAspectRatio="none" role="img" aria-label="{words}">'
        "<title>{words}</title>"
        '<path class="area" d="M{line}L{end} 21L0 21z"/><path class="line" d="M{line}"/></svg>'
    ).format(end=end, words=words, line=line)


def short(task_id: str | None) -> str | Markup:
    """Return the end of an id: the beginnings of ids that were made together are the same."""
    return NOTHING if task_id is None else escape(f"…{task_id[-SHORT_ID:]}")
