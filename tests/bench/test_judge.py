"""The judge of limits finds each violation in a history made by hand, and nothing in one without."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from bench.chaos.limits.judge import judge
from bench.chaos.limits.record import Event
from bench.chaos.limits.terms import Rate, Task, Terms, Use

START = datetime(2026, 1, 1, tzinfo=UTC)
TWO = {"limit:x": Terms(max_concurrency=2)}
X = (Use("limit:x"),)


class History:
    """Events in the order of their commits, a second apart unless it is said otherwise."""

    def __init__(self, terms: dict[str, Terms] | None = None) -> None:
        self.events: list[Event] = []
        self._tasks: dict[str, Task] = {}
        self._commit = 0
        if terms:
            self.change("changed", terms)

    def change(self, what: str, terms: dict[str, Terms], at: float | None = None) -> None:
        self._add([(what, None, terms)], at)

    def store(self, name: str, uses: Iterable[Use] = (), key: str | None = None, place: int | None = None) -> None:
        self._tasks[name] = Task(len(self._tasks), "q", tuple(uses), key, place)
        self._add([("stored", name, self._tasks[name])])

    def admit(self, *names: str, at: float | None = None) -> None:
        self._add([("admitted", name, self._tasks[name]) for name in names], at)

    def end(self, *names: str) -> None:
        """For good."""
        self._add([(what, name, None) for name in names for what in ("ended", "gone")])

    def back(self, name: str) -> None:
        """To be tried again."""
        self._add([("ended", name, None)])

    def run(self, *names: str, uses: Iterable[Use] = X, at: float | None = None) -> None:
        for name in names:
            self.store(name, uses)
        self.admit(*names, at=at)

    def _add(
        self, happened: list[tuple[str, str | None, Task | dict[str, Terms] | None]], at: float | None = None
    ) -> None:
        self._commit += 1
        when = START + timedelta(seconds=self._commit if at is None else at)
        for what, task, body in happened:
            self.events.append(Event(len(self.events), self._commit, what, task, when, body))

    @property
    def faults(self) -> dict[str, int]:
        return {what: len(found) for what, found in judge(self.events).faults.items() if what != "stranded"}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    history = History(TWO)
    history.run("a", "b")
    history.back("a")
    history.admit("a")
    history.end("a", "b")
    assert judge(history.events).exact


def test_a_third_task_under_a_limit_of_two_is_over_it() -> None:
    history = History(TWO)
    history.run("a", "b")
    history.run("c")
    assert history.faults == {"over a limit": 1}


def test_a_slot_is_free_only_from_the_commit_that_frees_it() -> None:
    history = History(TWO)
    history.run("a", "b")
    history.store("c", X)
    history.end("a")
    history.admit("c")
    assert history.faults == {}


def test_an_order_within_one_commit_does_not_matter() -> None:
    history = History(TWO)
    history.run("a", "b")
    history.store("c", X)
    history._add([("admitted", "c", history._tasks["c"]), ("ended", "a", None)])
    assert history.faults == {}


def test_a_lowered_limit_holds_from_its_answer_on() -> None:
    history = History(TWO)
    history.change("changing", {"limit:x": Terms(max_concurrency=1)})
    history.run("a", "b")
    history.change("changed", {"limit:x": Terms(max_concurrency=1)})
    history.end("a")
    history.run("c")
    assert history.faults == {"over a limit": 1}


def test_a_limit_counts_what_ran_before_it_existed() -> None:
    history = History({"limit:x": Terms()})
    history.run("a", "b", "c")
    history.change("changed", TWO)
    history.run("d")
    assert history.faults == {"over a limit": 1}


def test_each_key_of_a_keyed_limit_has_its_own_slots_and_an_override_goes_first() -> None:
    history = History({"limit:x": Terms(max_concurrency=1), "limit:x/k": Terms(max_concurrency=2)})
    history.run("a", uses=[Use("limit:x", "j")])
    history.run("b", "c", uses=[Use("limit:x", "k")])
    assert history.faults == {}
    history.run("d", uses=[Use("limit:x", "k")])
    history.change("changed", {"limit:x/k": Terms(removed=True)})
    history.run("e", uses=[Use("limit:x", "j")])
    history.run("f", uses=[Use("limit:x", "k")])
    assert history.faults == {"over a limit": 3}


@pytest.mark.parametrize("name", ["limit:x", "limit:x/k"])
def test_what_is_paused_admits_nothing(name: str) -> None:
    history = History({name: Terms(paused=True)})
    history.run("a", uses=[Use("limit:x", "k")])
    history.change("changing", {name: Terms()})
    history.run("b", uses=[Use("limit:x", "k")])
    assert history.faults == {"admitted while paused": 1}


def test_a_burst_and_what_the_rate_brings_are_admitted_and_one_more_is_not() -> None:
    history = History({"limit:x": Terms(rate=Rate(2, 3))})
    history.run("a", uses=[Use("limit:x", cost=3)], at=10)
    history.run("b", uses=[Use("limit:x", cost=2)], at=11)
    assert history.faults == {}
    history.run("c", at=11.4)
    assert history.faults == {"above a rate": 1}


def test_a_rate_is_judged_in_the_order_of_its_instants() -> None:
    history = History({"limit:x": Terms(rate=Rate(1, 1))})
    history.run("a", at=12)
    history.run("b", at=11)
    assert history.faults == {}


def test_a_changed_rate_grants_no_second_burst() -> None:
    history = History()
    history.change("changed", {"limit:x": Terms(rate=Rate(100, 10))}, at=0)
    history.run("a", uses=[Use("limit:x", cost=10)], at=10)
    history.change("changed", {"limit:x": Terms(rate=Rate(1, 10))}, at=10.01)
    history.run("b", at=10.02)
    assert history.faults == {}
    history.run("c", uses=[Use("limit:x", cost=9)], at=10.03)
    assert history.faults == {"above a rate": 1}


def test_what_a_larger_burst_admitted_fills_a_smaller_one_and_is_not_owed_beyond_it() -> None:
    history = History()
    history.change("changed", {"limit:x": Terms(rate=Rate(1, 10))}, at=0)
    history.run(*"abcdefgh", at=10)
    history.change("changing", {"limit:x": Terms(rate=Rate(1, 2))}, at=10.1)
    history.change("changed", {"limit:x": Terms(rate=Rate(1, 2))}, at=10.2)
    history.run("i", at=11.15)
    assert history.faults == {}
    history.run("j", at=11.2)
    assert history.faults == {"above a rate": 1}


def test_an_ordered_key_neither_overlaps_nor_overtakes() -> None:
    history = History()
    for place, name in enumerate("abcd"):
        history.store(name, key="k", place=place)
    history.admit("a")
    history.back("a")
    history.admit("a")
    history.end("a")
    assert history.faults == {}
    history.admit("c")
    assert history.faults == {"an ordered key is overtaken": 1}
    history.admit("b")
    assert history.faults == {"an ordered key is overtaken": 1, "an ordered key overlaps": 1}


def test_one_that_waits_to_be_tried_again_holds_back_those_behind_it() -> None:
    history = History()
    for place, name in enumerate("ab"):
        history.store(name, key="k", place=place)
    history.admit("a")
    history.back("a")
    history.admit("b")
    assert history.faults == {"an ordered key is overtaken": 1}


def test_a_probe_starts_in_its_turn_however_many_tasks_of_another_key_wait() -> None:
    history = History()
    others = "abcdefghi"
    for name in others:
        history.store(name, key="deep")
    history._tasks["p"] = Task(99, "q", key="p", probe=True)
    history._add([("stored", "p", history._tasks["p"])])
    history.admit(*others[:4])  # under way when the probe came
    history.admit(*others[4:7])
    history.admit(others[7], "p")
    assert history.faults == {} and judge(history.events).overtaken == 3
    history._add([("stored", "r", Task(100, "q", key="r", probe=True))])
    history._tasks["r"] = Task(100, "q", key="r", probe=True)
    history.admit(others[8])
    for name in others[:4]:
        history.back(name)
        history.admit(name)
    history.admit("r")
    assert history.faults == {"a key waits longer than its turn": 1}


def test_a_running_task_is_not_admitted_again() -> None:
    history = History()
    history.run("a")
    history.admit("a")
    assert history.faults == {"admitted while it ran": 1}


def test_what_never_ends_is_stranded() -> None:
    history = History()
    history.store("a")
    history.run("b")
    history.end("b")
    verdict = judge(history.events)
    assert (verdict.stored, verdict.ended, verdict.stranded) == (2, 1, 1)
    assert not verdict.exact
