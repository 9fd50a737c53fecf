"""What the dispatcher knows of lanes: turns, pauses, and those that are parked under a limit."""

from math import inf

from app.engine.claims import rides
from app.engine.lanes import Lane, Lanes, LimitKey
from app.runtime.signals import ConcurrencySlot

A, B = 1, 2
LIMIT: LimitKey = ("tenant", A)


def known(*queues: tuple[int, int]) -> Lanes:
    """Lanes of these queues, each with its tenant, none of them hinted."""
    lanes = Lanes()
    tenants = dict(queues)
    lanes.introduce(tenants.keys(), tenants)
    return lanes


def line(lanes: Lanes, tenant: int = A) -> list[int]:
    return [lane.key[0] for lane in lanes.waiting(tenant, 100)]


def begun(lanes: Lanes, tenant: int = A) -> Lane:
    """The first of the tenant's line, whose claim starts."""
    lane = lanes.waiting(tenant, 1)[0]
    lanes.begin(lane)
    return lane


def parked(lanes: Lanes, count: int) -> None:
    for _ in range(count):
        lanes.end(begun(lanes), LIMIT)


def test_tenants_take_turns_and_so_do_the_lanes_of_each() -> None:
    lanes = known((1, A), (2, A), (3, B))
    for queue in (1, 2, 3):
        assert lanes.hint((queue, 0))
    assert (lanes.tenants(), line(lanes)) == ([A, B], [1, 2])
    first = begun(lanes)
    assert (lanes.tenants(), line(lanes)) == ([B, A], [2])
    first.hinted = True
    lanes.end(first, None)
    assert line(lanes) == [2, 1]
    assert not lanes.hint((1, 0)), "it waits already"
    lanes.pass_over(lanes.waiting(A, 1))
    assert line(lanes) == [1, 2]


def test_a_lane_of_a_queue_not_heard_of_waits_until_its_tenant_is_known() -> None:
    lanes = known()
    assert lanes.hint((7, 0)) and lanes.hint((8, 0))
    assert (lanes.strange_queues, lanes.tenants()) == ({7, 8}, [])
    lanes.hint((9, 0))
    lanes.introduce({7, 8}, {7: B})
    assert line(lanes, B) == [7]
    assert lanes.strange_queues == {9}, "8 is gone; 9 was not asked about"


def test_a_slot_that_comes_free_lets_one_lane_out_and_the_others_stay() -> None:
    lanes = known(*((queue, A) for queue in range(1, 6)))
    for queue in range(1, 6):
        lanes.hint((queue, 0))
    parked(lanes, 5)
    assert not lanes.tenants()
    assert not lanes.hint((3, 0)), "what is enqueued does not change the limit"
    lanes.freed(ConcurrencySlot(B, 0, 1))
    assert not lanes.tenants()
    lanes.freed(ConcurrencySlot(A, 0, 99))
    assert line(lanes) == [1]
    lane = begun(lanes)
    assert lane.let_out == LIMIT
    lane.let_out = None
    lanes.end(lane, LIMIT)
    lanes.freed(ConcurrencySlot(A, 0, 99))
    lanes.freed(ConcurrencySlot(A, 0, 99))
    assert line(lanes) == [2, 3], "the one that tried goes behind those that wait longer"


def test_a_slot_that_comes_free_during_a_claim_lets_that_lane_try_again() -> None:
    lanes = known((1, A), (2, B))
    lanes.hint((1, 0))
    lanes.hint((2, 0))
    lane, other = begun(lanes), begun(lanes, B)
    lanes.freed(ConcurrencySlot(A, 0, 1))
    lanes.end(lane, LIMIT)
    lanes.end(other, ("tenant", B))
    assert line(lanes) == [1]
    assert line(lanes, B) == []


def test_a_hint_to_every_lane_ends_pauses_and_lets_one_out_under_each_limit() -> None:
    lanes = known((1, A), (2, A), (3, B), (4, B))
    for queue in (1, 2, 3):
        lanes.hint((queue, 0))
    parked(lanes, 2)
    (paused,) = lanes.waiting(B, 1)
    lanes.pause(paused, 100.0)
    assert lanes.paused_until(paused) == 100.0
    lanes.hint_all()
    assert lanes.paused_until(paused) == 0.0
    assert line(lanes) == [1]
    lanes.pause(paused, 200.0)
    assert lanes.paused_until(paused) == 200.0


def test_lanes_at_rest_are_forgotten() -> None:
    lanes = known((1, A), (2, A))
    lanes.hint((1, 0))
    lanes.end(begun(lanes), None)
    lanes.hint((2, 0))
    lanes.forget()
    assert line(lanes) == [2]
    assert lanes.hint((1, 0))


def test_lanes_ride_for_slots_that_only_dispatchers_wait_for() -> None:
    """A worker waits under the limit of its tenant, or of a queue without a handler, whose tasks may name their own."""
    assert rides((1, 0), ("queue", 1))
    assert rides((1, 7), ("handler", 7))
    assert not rides((1, 7), ("queue", 1))
    assert not rides((1, 0), ("tenant", A))
    assert not rides((1, 0), None)


def test_lanes_under_a_limit_may_be_tried_at_a_time_and_the_earliest_counts() -> None:
    lanes = known((1, A), (2, A))
    for queue in (1, 2):
        lanes.hint((queue, 0))
    parked(lanes, 2)
    assert lanes.try_due(0.0) == inf
    for at in (50.0, 5.0, 20.0):
        lanes.try_at(LIMIT, at)
    lanes.try_at(("handler", 7), 30.0)
    assert lanes.try_due(4.0) == 5.0
    assert line(lanes) == []
    assert lanes.try_due(5.0) == 30.0
    assert line(lanes) == [1], "one lane, which lets out the next if it finds room"
    assert lanes.try_due(60.0) == inf
    assert line(lanes) == [1]
