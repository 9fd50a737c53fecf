"""Declared bodies: what is read, and how every fault of a refused one is found."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.models.definitions import ApplyOutline
from app.api.models.handlers import RotateSecretBody
from app.api.models.leases import FailBody, LeaseBody, RenewBody
from app.api.models.queues import RedriveBody
from app.domain.bodies import MAX_FAULTS, faults, field_errors, read
from app.domain.errors import Refusal
from app.domain.followups import FollowUpBody
from app.domain.handlers import HandlerBody, HandlerDefinition
from app.domain.limits import Limits
from app.domain.patches import PatchBody
from app.domain.queues import QueueBody
from app.domain.schedules.definitions import PreviewBody, ScheduleBody
from app.domain.tasks import TaskBody, parse_enqueue

DECLARED: list[type[msgspec.Struct]] = [
    ApplyOutline,
    FailBody,
    FollowUpBody,
    HandlerBody,
    LeaseBody,
    Limits,
    PatchBody,
    PreviewBody,
    QueueBody,
    RedriveBody,
    RenewBody,
    RotateSecretBody,
    ScheduleBody,
    TaskBody,
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([0, 1, 5, 99, 100, 599, 600, 0.1, 1.0, 1.5, 1e300])
    | st.sampled_from(
        ["", "a", "A", "a\n", "q-1", "once", "skip", "dead", "base64", "x" * 2049, "2026-01-01T00:00:00Z"]
    )
)
NUMBERS = st.integers(-(10**20), 10**20) | st.integers(-200, 1200) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.sampled_from(["a", "mode", "B"]), inner)
)


REQUIRED = {"payload": None, "queue": "q", "url": "http://a/", "idempotency_key": "k", "error": "e", "seconds": 5}
"""Good values of the fields that some body must have."""


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__name__)
def test_a_body_has_faults_exactly_if_it_cannot_be_read(kind: type[msgspec.Struct]) -> None:
    fields = msgspec.structs.fields(kind)
    good = {field.encode_name: REQUIRED[field.encode_name] for field in fields if field.required}
    decoder = msgspec.json.Decoder(kind)

    @settings(max_examples=100)
    @given(st.sampled_from([*(field.encode_name for field in fields), "unknown"]), NUMBERS | VALUES)
    def check(name: str, value: Any) -> None:
        text = json.dumps({**good, name: value})
        try:
            decoder.decode(text)
            readable = True
        except msgspec.ValidationError:
            readable = False
        assert readable == (faults(json.loads(text), kind) == []), text

    check()


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__name__)
def test_what_a_body_must_have_is_missed(kind: type[msgspec.Struct]) -> None:
    required = [f"/{field.encode_name}" for field in msgspec.structs.fields(kind) if field.required]
    assert [error.pointer for error in faults({}, kind)] == required
    assert [error.pointer for error in faults([], kind)] == [""]


def test_a_name_ends_with_its_last_character() -> None:
    """Python's `$` would let a line end follow."""
    assert read({"handler": "a"}, QueueBody).handler == "a"
    assert [error.pointer for error in faults({"handler": "a\n"}, QueueBody)] == ["/handler"]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"handler": "a\n"}, QueueBody)


def test_every_fault_is_named_and_not_only_the_first() -> None:
    body = {
        "url": 5,
        "timeout_seconds": 0,
        "headers": {"a": 1, "b": "c", "d": None},
        "fatal_statuses": [400, 99, "x"],
        "max_concurrency": True,
        "odd": 1,
    }
    with pytest.raises(Refusal) as refusal:
        read(body, HandlerBody)
    assert {error.pointer: error.detail for error in refusal.value.errors} == {
        "/url": "expected a string",
        "/timeout_seconds": "expected a number from 0.1 to 43200",
        "/headers/a": "expected a string",
        "/headers/d": "expected a string",
        "/fatal_statuses/1": "expected an integer from 100 to 599",
        "/fatal_statuses/2": "expected an integer from 100 to 599",
        "/max_concurrency": "expected 1 to 100000, or null for no limit (to stop a queue, pause it)",
        "/odd": "unknown field",
    }


def test_a_refusal_names_a_bounded_number_of_faults() -> None:
    many: list[dict[str, Any]] = [{"tags": [1] * 10**5}, {"headers": {f"x-{n}": 1 for n in range(10**5)}}]
    many.append({f"x-{n}": 1 for n in range(10**5)})
    for body in many:
        assert len(faults({"payload": 1, **body}, TaskBody)) == MAX_FAULTS


def test_a_definition_made_in_code_is_held_to_the_same_declaration() -> None:
    assert faults(HandlerDefinition("http://a/")) == []
    found = faults(HandlerDefinition("http://a/", float("nan"), fatal_statuses=(99,)))
    assert [error.pointer for error in found] == ["/timeout_seconds", "/fatal_statuses/0"]


def test_rules_are_checked_although_a_type_is_wrong() -> None:
    body = {"payload": 1, "priority": 101, "headers": {"Host": "x"}, "tags": ["a", "a"], "run_at": "noon"}
    with pytest.raises(Refusal) as refusal:
        parse_enqueue(json.dumps(body).encode(), max_payload_bytes=100)
    assert {error.pointer for error in refusal.value.errors} == {"/priority", "/headers/Host", "/tags", "/run_at"}


@pytest.mark.parametrize(
    ("message", "pointer", "detail"),
    [
        ("Expected `int`, got `str` - at `$.tags[2]`", "/tags/2", "Expected int, got str"),
        ("Object contains unknown field `a/b` - at `$.x`", "/x/a~1b", "unknown field"),
        ("Object missing required field `url`", "/url", "is required"),
    ],
)
def test_the_words_of_the_decoder_become_pointers(message: str, pointer: str, detail: str) -> None:
    """They are used only where the declaration itself finds nothing."""
    [error] = field_errors(message)
    assert (error.pointer, error.detail) == (pointer, detail)
