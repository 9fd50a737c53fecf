"""The rules of the three verdicts, as a table: what is there, and which rule decides."""

import re
from pathlib import Path

import pytest

from app.domain import verdicts
from app.domain.verdicts import FleetFacts, QueueFacts, execution, flow, liveness

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "verdicts.md"
OLD, SLOW = verdicts.STALLED_SECONDS, verdicts.SLOW_SECONDS
STILL = QueueFacts("still", ready=3, oldest_ready_seconds=OLD)
MOVES = QueueFacts("moves", ready=9, oldest_ready_seconds=OLD, started=1)
HELD_UP = QueueFacts("long", ready=9, oldest_ready_seconds=OLD, running=1)
SHUT = QueueFacts("shut", ready=2, oldest_ready_seconds=OLD * 9, paused=True)
BEHIND = QueueFacts("behind", ready=9, oldest_ready_seconds=SLOW, enqueued=5, started=4)
FRESH = QueueFacts("fresh", ready=5, oldest_ready_seconds=OLD - 1)


@pytest.mark.parametrize(
    ("queues", "state", "rule"),
    [
        ([], "ok", "nothing_waits"),
        ([QueueFacts("idle")], "ok", "nothing_waits"),
        ([FRESH], "ok", "flowing"),
        ([MOVES], "ok", "flowing"),
        ([HELD_UP], "ok", "flowing"),
        ([QueueFacts("busy", ready=9, oldest_ready_seconds=SLOW, enqueued=4, started=4)], "ok", "flowing"),
        ([SHUT], "degraded", "paused_with_work"),
        ([SHUT, MOVES], "degraded", "paused_with_work"),
        ([BEHIND, SHUT], "degraded", "falling_behind"),
        ([STILL, BEHIND, SHUT], "degraded", "queues_stand_still"),
        ([STILL, HELD_UP], "degraded", "queues_stand_still"),
        ([STILL, QueueFacts("idle"), SHUT, FRESH], "stuck", "nothing_starts"),
    ],
)
def test_flow(queues: list[QueueFacts], state: str, rule: str) -> None:
    found = flow(queues)
    assert (found.state, found.rule) == (state, rule) and found.sentence.endswith(".")


def test_a_queue_that_falls_behind_is_told_with_its_own_oldest_task() -> None:
    older = QueueFacts("older", ready=1, oldest_ready_seconds=SLOW * 9, enqueued=1, started=1)
    assert (
        flow([BEHIND, older]).sentence == "More arrives than starts in queue behind: the oldest task has waited 5 min."
    )


GOOD = QueueFacts("good", succeeded=100)
WEAK = QueueFacts("weak", succeeded=90, retried=10)
BAD = QueueFacts("bad", retried=9, dead=1)
LOSES = QueueFacts("loses", succeeded=99, dead=1)


@pytest.mark.parametrize(
    ("queues", "open_", "state", "rule"),
    [
        ([], 0, "ok", "nothing_ended"),
        ([GOOD], 0, "ok", "succeeding"),
        ([QueueFacts("few", retried=9)], 0, "ok", "succeeding"),
        ([LOSES], 0, "degraded", "tasks_die"),
        ([GOOD, LOSES], 1, "degraded", "breaker_open"),
        ([WEAK], 1, "degraded", "many_fail"),
        ([QueueFacts("almost", succeeded=91, retried=9)], 0, "ok", "succeeding"),
        ([GOOD, BAD], 0, "degraded", "queues_fail"),
        ([BAD], 3, "stuck", "nothing_succeeds"),
        ([QueueFacts("a", retried=5), QueueFacts("b", dead=5)], 0, "stuck", "nothing_succeeds"),
    ],
)
def test_execution(queues: list[QueueFacts], open_: int, state: str, rule: str) -> None:
    found = execution(queues, open_)
    assert (found.state, found.rule) == (state, rule) and found.sentence.endswith(".")


LATE = verdicts.BEHIND_SECONDS + 1


@pytest.mark.parametrize(
    ("fleet", "state", "rule"),
    [
        (FleetFacts(2, 1), "ok", "alive"),
        (FleetFacts(1, 1, lapsed_seconds=-30.0, due_seconds=verdicts.BEHIND_SECONDS), "ok", "alive"),
        (FleetFacts(2, 1, answer_seconds=1.5), "degraded", "database_slow"),
        (FleetFacts(2, 1, deaf=1, answer_seconds=1.5), "degraded", "listener_lost"),
        (FleetFacts(2, 1, silent=1, deaf=1), "degraded", "replica_silent"),
        (FleetFacts(2, 1, silent=1, late_schedules=2), "degraded", "schedules_late"),
        (FleetFacts(2, 1, late_schedules=2, lapsed_seconds=LATE), "degraded", "loops_behind"),
        (FleetFacts(2, 1, due_seconds=LATE), "degraded", "loops_behind"),
        (FleetFacts(2, 0, due_seconds=LATE), "stuck", "no_engine"),
        (FleetFacts(0, 0, silent=2), "stuck", "no_replica"),
    ],
)
def test_liveness(fleet: FleetFacts, state: str, rule: str) -> None:
    found = liveness(fleet)
    assert (found.state, found.rule) == (state, rule) and found.sentence.endswith(".")


def test_sentences_name_queues_while_they_are_few() -> None:
    assert flow([STILL]).sentence == "Nothing starts: 3 tasks are ready in queue still."
    assert flow([STILL, MOVES]).sentence == "Queue still stands still with 3 tasks ready; other queues move."
    many = [QueueFacts(f"q{n}", ready=1, oldest_ready_seconds=OLD) for n in range(5)]
    assert flow(many).sentence == "Nothing starts: 5 tasks are ready in 5 queues."
    assert flow(many).queues == ("q0", "q1", "q2", "q3", "q4")
    assert liveness(FleetFacts(1, 1)).sentence == "1 replica is alive and keeps up; the database answers."


def test_the_page_has_every_rule_in_the_order_in_which_they_are_tried() -> None:
    source = Path(verdicts.__file__).read_text()
    rules = re.findall(r'Verdict\("(ok|degraded|stuck)", "(\w+)"', source)
    assert re.findall(r"^\| `(ok|degraded|stuck)` \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == rules
