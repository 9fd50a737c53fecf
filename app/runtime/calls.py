"""Counts of calls to handlers that have a breaker or an adaptive limit, until they are added to the database."""

from collections.abc import Callable, Iterable

from app.domain.breakers import CallKind
from app.domain.histograms import BUCKETS, bucket_of, summed
from app.store.breakers import Calls


class CallCounts:
    """What this replica has counted since `take` was last called, by handler and period."""

    def __init__(self, noted: Callable[[], None]) -> None:
        self._noted = noted
        """Called once something has been counted."""
        self._counts: dict[tuple[int, int], Calls] = {}

    def ended(self, handler_id: int, period: int, kind: CallKind, seconds: float) -> None:
        """Count a call that was admitted in this period and took so many seconds."""
        calls = self._of(handler_id, period)
        calls.calls += 1
        calls.failures += kind != "ok"
        calls.pushed_back += kind == "pushed_back"
        calls.durations[bucket_of(seconds)] += 1

    def found_full(self, handler_id: int, period: int) -> None:
        """Note that a claim found the handler's limit reached."""
        self._of(handler_id, period).found_full = True

    def take(self) -> list[Calls]:
        taken, self._counts = self._counts, {}
        return list(taken.values())

    def take_back(self, counted: Iterable[Calls]) -> None:
        """Keep counts that could not be written."""
        for old in counted:
            calls = self._of(old.handler_id, old.period)
            calls.calls += old.calls
            calls.failures += old.failures
            calls.pushed_back += old.pushed_back
            calls.found_full |= old.found_full
            calls.durations = summed((calls.durations, old.durations))

    def _of(self, handler_id: int, period: int) -> Calls:
        key = (handler_id, period)
        calls = self._counts.get(key)
        if calls is None:
            calls = self._counts[key] = Calls(handler_id, period, 0, 0, 0, False, [0] * BUCKETS)
            self._noted()
        return calls
