"""The rules of what a task waits for, as a table; and what is said of each blocker."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import UNSET, structs

from app.domain.breakers import Health
from app.domain.waiting import RULES, Level, Parked, WaitingFacts, WaitingFor, blockers, first_blocker, first_of_new
from app.domain.why import Bucket, Definitions, Evidence, HoldingTask
from app.domain.why_schedules import ScheduleFacts
from app.domain.why_schedules import verdict as of_schedule
from app.domain.why_waiting import EXPLANATIONS, INDEFINITE, explain, starts_about, verdict

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER, SOONER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
PUSHED = WaitingFacts(queue="mail", tenant="acme", handler="mailer", handler_id=7)
PULLED = WaitingFacts(queue="jobs", tenant="acme")
FULL, FREE = Level(max=2, used=2), Level(max=2, used=1)
STOPS = (WaitingFor.KEY_LIMIT, WaitingFor.LIMIT, WaitingFor.KEY_PAUSED, WaitingFor.ORDERING)
EVIDENCE = Evidence(now=NOW, task_id="01890000-0000-7000-8000-000000000000")


def parked(code: WaitingFor, **fields: Any) -> Parked:
    return Parked(code, bucket=1, limit_id=1, **fields)


@pytest.mark.parametrize(
    ("facts", "given", "expected"),
    [
        (PUSHED, {}, []),
        (PULLED, {}, ["worker"]),
        (PUSHED, {"run_at": LATER, "promoted": False}, ["run_at"]),
        (PUSHED, {"run_at": LATER, "promoted": False, "failed_at": SOONER}, ["retry_backoff"]),
        # once its time has come, the failure no longer matters
        (PUSHED, {"failed_at": SOONER}, []),
        (PUSHED, {"paused": True}, ["queue_paused"]),
        (PUSHED, {"disabled": True}, ["handler_disabled"]),
        (PUSHED, {"parked_until": LATER}, ["handler_parked"]),
        # it is over before the task is due
        (PUSHED, {"parked_until": NOW, "run_at": LATER}, ["run_at"]),
        (PUSHED, {"breaker_open": True}, ["breaker_open"]),
        # an open breaker is a limit of 0, and not said twice
        (PUSHED, {"breaker_open": True, "handler_limit": Level(max=0, used=0)}, ["breaker_open"]),
        (PUSHED, {"engine": False}, ["no_engine"]),
        # workers take what is ready themselves; an engine makes it ready
        (PULLED, {"engine": False}, ["worker"]),
        (PULLED, {"engine": False, "promoted": False}, ["no_engine", "worker"]),
        (PULLED, {"worker": False}, ["no_worker"]),
        (PUSHED, {"tenant_limit": FULL}, ["global_limit"]),
        (PUSHED, {"handler_limit": FULL}, ["handler_limit"]),
        (PUSHED, {"queue_limit": FULL}, ["queue_limit"]),
        (PUSHED, {"tenant_limit": FREE, "handler_limit": FREE, "queue_limit": FREE}, []),
        # a lowered limit
        (PUSHED, {"queue_limit": Level(max=1, used=5)}, ["queue_limit"]),
        (PULLED, {"queue_limit": FULL}, ["queue_limit", "worker"]),
        *((PUSHED, {"parked": parked(code)}, [code]) for code, _ in RULES if code.endswith("_rate")),
        *((PUSHED, {"parked": parked(code)}, [code]) for code in STOPS),
        (PUSHED, {"fair_share": True}, ["fair_share"]),
        (PUSHED, {"busy": True}, ["replicas_busy"]),
        (PULLED, {"busy": True}, ["worker"]),
        (PUSHED, {"behind": True}, ["behind"]),
        # what changes from moment to moment says nothing of a task that is not due
        (
            PUSHED,
            {"run_at": LATER, "queue_limit": FULL, "parked": parked(WaitingFor.LIMIT), "busy": True, "behind": True},
            ["run_at"],
        ),
        (
            PUSHED,
            {"run_at": LATER, "paused": True, "disabled": True, "engine": False},
            ["run_at", "queue_paused", "handler_disabled", "no_engine"],
        ),
        (
            PUSHED,
            {
                "paused": True,
                "disabled": True,
                "parked_until": LATER,
                "breaker_open": True,
                "engine": False,
                "tenant_limit": FULL,
                "handler_limit": FULL,
                "queue_limit": FULL,
                "parked": parked(WaitingFor.KEY_LIMIT),
                "fair_share": True,
                "busy": True,
                "behind": True,
            },
            [
                *("queue_paused", "handler_disabled", "handler_parked", "breaker_open", "no_engine", "global_limit"),
                *("queue_limit", "key_limit", "fair_share", "replicas_busy", "behind"),
            ],
        ),
        (
            PULLED,
            {"paused": True, "worker": False, "queue_limit": FULL, "behind": True},
            ["queue_paused", "no_worker", "queue_limit", "behind"],
        ),
    ],
)
def test_facts_become_blockers_in_the_order_of_a_claim(
    facts: WaitingFacts, given: dict[str, Any], expected: list[str]
) -> None:
    facts = structs.replace(facts, **given)
    found = list(blockers(facts))
    assert found == expected
    assert first_blocker(facts) == (expected[0] if expected else None)
    assert [blocker.code for blocker in explain(facts, EVIDENCE)] == expected


def test_each_code_has_one_rule_and_one_explanation() -> None:
    assert [code for code, _ in RULES] == list(WaitingFor), "in the order of the table"
    assert EXPLANATIONS.keys() == set(WaitingFor)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"later": True}, "run_at"),
        ({"queue_paused": True}, "queue_paused"),
        ({"queue_paused": True, "handler": False}, "queue_paused"),
        ({"handler": False}, "worker"),
        ({"handler": False, "engine": False}, "worker"),
        ({"handler_disabled": True, "engine": False}, "handler_disabled"),
        ({"engine": False}, "no_engine"),
    ],
)
def test_a_new_task_waits_by_the_same_rules(given: dict[str, bool], expected: str | None) -> None:
    usual = {"later": False, "queue_paused": False, "handler": True, "handler_disabled": False, "engine": True}
    assert first_of_new(**usual | given) == expected


def test_a_limit_is_raised_by_the_whole_definition() -> None:
    defined = {"max_concurrency": 2, "description": "kept"}
    evidence = replace(EVIDENCE, definitions=Definitions(queue=defined))
    [blocker] = explain(structs.replace(PUSHED, queue_limit=FULL), evidence)
    assert blocker.next.body == {"max_concurrency": 3, "description": "kept"}  # type: ignore[union-attr]
    [unknown] = explain(structs.replace(PUSHED, handler_limit=FULL), EVIDENCE)
    assert unknown.next.body is UNSET, "its headers are not known"  # type: ignore[union-attr]


def test_what_an_operator_grants_is_raised_by_an_operator() -> None:
    given = Definitions(tenant={"max_concurrency": None, "rate": None}, granted=2)
    [blocker] = explain(structs.replace(PUSHED, tenant_limit=FULL), replace(EVIDENCE, definitions=given))
    assert blocker.next.path == "/tenants/acme/limits"  # type: ignore[union-attr]


def test_an_adaptive_limit_is_not_raised_by_hand() -> None:
    evidence = replace(EVIDENCE, definitions=Definitions(handler={"max_concurrency": 10}))
    [blocker] = explain(structs.replace(PUSHED, handler_limit=FULL), evidence)
    assert blocker.next.method is UNSET  # type: ignore[union-attr]


def test_names_are_percent_encoded_in_paths() -> None:
    facts = structs.replace(PUSHED, parked=parked(WaitingFor.KEY_PAUSED, key="a/b c", paused=True))
    evidence = replace(EVIDENCE, bucket=Bucket(keyed=True, key_paused=True))
    [blocker] = explain(facts, evidence)
    assert blocker.next.path == "/queues/mail/keys/a%2Fb%20c/resume"  # type: ignore[union-attr]


def test_an_open_breaker_says_until_when() -> None:
    facts = structs.replace(PUSHED, breaker_open=True)
    for health, until in ((Health("open", SOONER, probe_at=LATER), True), (Health("open", SOONER), False)):
        [blocker] = explain(facts, replace(EVIDENCE, health=health))
        assert (blocker.until is not UNSET) == until
        assert (starts_about([blocker], facts, EVIDENCE) is not None) == until


@pytest.mark.parametrize(
    ("given", "ahead", "rate", "expected"),
    [
        ({}, 0, 0.0, NOW),
        ({"run_at": LATER}, 0, 0.0, LATER),
        ({"behind": True}, 20, 2.0, NOW + timedelta(seconds=10)),
        ({"behind": True}, 20, 0.0, None),
        ({"queue_limit": FULL}, 0, 0.5, NOW + timedelta(seconds=2)),
        ({"parked": parked(WaitingFor.QUEUE_RATE, until=LATER)}, 1, 1.0, LATER + timedelta(seconds=1)),
        ({"paused": True}, 0, 1.0, None),
        ({"engine": False}, 0, 1.0, None),
        ({"parked": parked(WaitingFor.LIMIT, limit="l", paused=True)}, 0, 1.0, None),
    ],
)
def test_the_start_is_estimated(given: dict[str, Any], ahead: int, rate: float, expected: datetime | None) -> None:
    facts = structs.replace(PUSHED, **given)
    evidence = replace(EVIDENCE, ahead=ahead, starts_per_second=rate)
    assert starts_about(explain(facts, evidence), facts, evidence) == expected
    assert WaitingFor.QUEUE_PAUSED in INDEFINITE


def test_the_verdict_is_one_sentence_and_how_many_more() -> None:
    assert verdict([]) == "Nothing stops it: a replica is about to claim it."
    facts = structs.replace(PUSHED, paused=True, disabled=True)
    assert verdict(explain(facts, EVIDENCE)) == "Queue mail is paused. 1 more thing stands in its way."


def test_the_first_of_an_ordered_key_is_named() -> None:
    facts = structs.replace(PUSHED, parked=parked(WaitingFor.ORDERING, key="k"))
    first = HoldingTask("01890000-0000-7000-8000-00000000000a", "mail")
    [blocker] = explain(facts, replace(EVIDENCE, first=first, bucket=Bucket(keyed=True)))
    assert first.task in blocker.detail and blocker.next.path == f"/tasks/{first.task}/cancel"  # type: ignore[union-attr]


SCHEDULE = ScheduleFacts(
    name="nightly",
    now=NOW,
    created_at=SOONER,
    at=None,
    paused=False,
    paused_reason=None,
    next_nominal_at=LATER,
    is_time=True,
    engine=True,
)
ROW = {"nominal_at": NOW, "nominal_until": NOW, "count": 1}


@pytest.mark.parametrize(
    ("given", "words", "step"),
    [
        ({}, "No time of it has come yet.", None),
        (
            {"paused": True, "paused_reason": "paused by request"},
            "is paused: paused by request.",
            "/schedules/nightly/resume",
        ),
        ({"next_nominal_at": SOONER, "engine": False}, "no replica with an engine", None),
        ({"next_nominal_at": SOONER}, "about to fire it", None),
        ({"at": LATER}, "is still to come; it fires then.", None),
        ({"at": LATER, "is_time": False}, "has no time at", None),
        ({"at": SOONER - timedelta(days=1)}, "was created at", None),
        ({"at": NOW, "is_time": False}, "has no time at", None),
        ({**ROW, "outcome": "running", "task_id": "t"}, "has not ended: its task is t.", None),
        ({**ROW, "outcome": "ran_ok", "task_id": "t"}, "and succeeded", None),
        ({**ROW, "outcome": "ran_failed", "task_id": "t"}, "and failed", "/batches/t/retry"),
        ({**ROW, "outcome": "cancelled", "task_id": "t"}, "was cancelled", "/schedules/nightly/backfill"),
        ({**ROW, "outcome": "skipped_overlap", "extra": True}, "an earlier run", "/schedules/nightly/trigger"),
        ({**ROW, "outcome": "waiting"}, "waits until the one before it", None),
        ({**ROW, "outcome": "skipped_overlap"}, "an earlier run had not ended", "/schedules/nightly/backfill"),
        ({**ROW, "outcome": "missed", "count": 3}, "3 times from", "/schedules/nightly/backfill"),
        ({**ROW, "outcome": "superseded"}, "a later time took its place", "/schedules/nightly/backfill"),
        ({**ROW, "outcome": "paused"}, "the schedule was paused", "/schedules/nightly/backfill"),
        ({**ROW, "outcome": "dropped"}, "when the definition was replaced", "/schedules/nightly/backfill"),
    ],
)
def test_a_row_of_the_ledger_says_why(given: dict[str, Any], words: str, step: str | None) -> None:
    found, then = of_schedule(replace(SCHEDULE, **given))
    assert words in found
    assert (None if then is UNSET or then.path is UNSET else then.path) == step
