"""Documents of definitions: how they differ from what is there, and what a version of a plan covers."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.domain.backoff import Backoff, RetryPolicy
from app.domain.definitions import (
    DefinitionChange,
    Document,
    FieldChange,
    handler_changes,
    limits_changes,
    name_faults,
    queue_changes,
    schedule_changes,
    version_of,
)
from app.domain.followups import OnComplete
from app.domain.handlers import HandlerDefinition
from app.domain.limits import Limits
from app.domain.queues import QueueDefinition
from app.domain.schedules.bodies import parse_schedule
from app.domain.schedules.definitions import ScheduleDefinition

HANDLER = HandlerDefinition(url="http://a/")
SCHEDULE = ScheduleDefinition(queue="q", payload=b'{"n": 1}', cron="@daily")


def shown(changes: tuple[FieldChange, ...]) -> list[tuple[str, Any, Any]]:
    return [(change.field, change.before, change.after) for change in changes]


def test_equal_definitions_do_not_differ() -> None:
    assert handler_changes(HANDLER, "s", structs.replace(HANDLER), "s") == ()
    assert queue_changes(QueueDefinition(), QueueDefinition()) == ()
    assert schedule_changes(SCHEDULE, structs.replace(SCHEDULE)) == ()
    assert limits_changes(Limits(3), Limits(3)) == ()


def test_of_a_new_definition_only_what_is_not_the_default_is_told() -> None:
    assert shown(handler_changes(None, None, HANDLER, None)) == [("url", None, "http://a/")]
    assert shown(queue_changes(None, QueueDefinition(max_depth=5))) == [("max_depth", None, 5)]
    fixed = QueueDefinition(retry=RetryPolicy(backoff=Backoff(kind="fixed", seconds=5)))
    backoff = [("retry.backoff.kind", None, "fixed"), ("retry.backoff.seconds", None, 5)]
    assert shown(queue_changes(None, fixed)) == backoff
    assert [change.field for change in schedule_changes(None, SCHEDULE)] == ["queue", "payload", "cron"]


def test_values_of_headers_and_secrets_are_told_of_and_not_shown() -> None:
    before = structs.replace(HANDLER, headers={"x-a": "1", "x-b": "2"})
    after = structs.replace(HANDLER, headers={"x-b": "3", "x-c": "4"})
    assert shown(handler_changes(before, "old", after, "new")) == [
        ("headers.x-a", "***", None),
        ("headers.x-b", "***", "***"),
        ("headers.x-c", None, "***"),
        ("secret", "***", "***"),
    ]
    assert handler_changes(before, "old", before, None) == (), "a secret that is not given is kept"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (b'{"a": 1, "b": 2}', b'{"b":2,"a":1}', True),
        (b"1", b"1.0", False),
        (b"1", b"true", False),
        (b"0", b"false", False),
        (b"[1, 2]", b"[2, 1]", False),
        (b'"\\u00e9"', '"é"'.encode(), True),
        (b"1e400", b"1e400", True),
        (b"1e400", b"2e400", False),
        (b"9007199254740993", b"9007199254740992", False),
    ],
)
def test_payloads_are_compared_by_value(before: bytes, after: bytes, same: bool) -> None:
    assert (
        schedule_changes(structs.replace(SCHEDULE, payload=before), structs.replace(SCHEDULE, payload=after)) == ()
    ) == same
    old, new = [structs.replace(SCHEDULE, on_complete=OnComplete("q", payload)) for payload in (before, after)]
    assert (schedule_changes(old, new) == ()) == same


text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_the_same_payload_written_in_another_way_is_no_change(value: Any, ascii_only: bool) -> None:
    dense = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    loose = json.dumps(value, indent=3, sort_keys=True).encode()
    assert schedule_changes(structs.replace(SCHEDULE, payload=dense), structs.replace(SCHEDULE, payload=loose)) == ()


def test_a_schedule_read_twice_is_the_same() -> None:
    body = b'{"queue": "q", "payload": null, "every_seconds": 60, "retry": {"max_attempts": 3}, "at": null}'
    other = b'{"queue":"q","payload":null,"every_seconds":60.0,"timezone":"UTC","retry":{"max_attempts":3}}'
    assert schedule_changes(parse_schedule(body, 1000), parse_schedule(other, 1000)) == ()


def test_names_are_known_from_the_document_or_from_what_is_there_and_stays() -> None:
    there: dict[str, set[str]] = {"handlers": {"old"}, "queues": {"old"}, "named_limits": {"old"}}
    document = Document(
        handlers={"new": HANDLER},
        queues={"a": QueueDefinition(handler="new"), "b": QueueDefinition(handler="old")},
        schedules={"s": structs.replace(SCHEDULE, queue="old", on_complete=OnComplete("a", b"1"))},
    )
    assert list(name_faults(document, there)) == []
    pruned = [fault.pointer for fault in name_faults(replace(document, prune=True), there)]
    assert pruned == ["/queues/b/handler", "/schedules/s/queue"]
    kept = replace(document, queues=None, schedules={"s": structs.replace(SCHEDULE, queue="old")}, prune=True)
    assert list(name_faults(kept, there)) == [], "a section that is absent is not pruned"


def test_the_version_of_a_plan_changes_with_what_was_found_and_with_what_is_wanted() -> None:
    change = DefinitionChange("queue", "a", "update", (FieldChange("max_depth", 1, 2),), '"1"')
    version = version_of([change], {"queues": {"a": "x"}})
    assert version == version_of([replace(change)], {"queues": {"a": "x"}})
    others = [
        version_of([replace(change, etag='"2"')], {"queues": {"a": "x"}}),
        version_of([replace(change, action="unchanged", fields=())], {"queues": {"a": "x"}}),
        version_of([change], {"queues": {"a": "y"}}),
        version_of([], {"queues": {"a": "x"}}),
    ]
    assert version not in others and len(set(others)) == 4
