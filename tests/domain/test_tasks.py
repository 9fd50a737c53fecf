"""What an enqueue may say."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Refusal
from app.domain.payloads import payload_of
from app.domain.tasks import Enqueue, check_instants, parse_enqueue

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def parsed(**fields: Any) -> Enqueue:
    return parse_enqueue(json.dumps({"payload": None, **fields}).encode(), max_payload_bytes=1_000_000)


def refused(body: bytes, max_payload_bytes: int = 1_000_000) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        parse_enqueue(body, max_payload_bytes=max_payload_bytes)
    return refusal.value


def pointers(refusal: Refusal) -> list[str]:
    assert refusal.code == "invalid"
    return [error.pointer for error in refusal.errors]


@pytest.mark.parametrize(
    "span",
    [
        b"null",
        b"1.0",
        b"-0",
        b'""',
        b"1E5",
        b'{"b" : 1,"a":\t[ ] }',
        b'"\\u0000"',
        b'"\\/\xc3\xa9"',
        b"123456789012345678901234567890",
    ],
)
def test_the_payload_is_the_bytes_of_its_span(span: bytes) -> None:
    assert parse_enqueue(b' {"payload" : ' + span + b" } ", max_payload_bytes=100).payload == span
    both = b'{"type":"t", "payload"  :  ' + span + b'\n, "priority": 3}'
    assert parse_enqueue(both, max_payload_bytes=100) == Enqueue(span, type="t", priority=3)


def test_every_field_arrives() -> None:
    assert parsed(
        type="mail",
        delay_seconds=5,
        ttl_seconds=60.5,
        priority=-100,
        idempotency_key="k",
        retry={"max_attempts": 3, "backoff": {"kind": "fixed", "seconds": 2}},
        timeout_seconds=10,
        correlation_id="c",
        headers={"x-a": "b"},
        tags=["one", "two"],
        handler="h",
    ) == Enqueue(
        b"null",
        type="mail",
        delay_seconds=5.0,
        ttl_seconds=60.5,
        priority=-100,
        idempotency_key="k",
        retry={"max_attempts": 3, "backoff": {"kind": "fixed", "seconds": 2}},
        timeout_seconds=10.0,
        correlation_id="c",
        headers={"x-a": "b"},
        tags=("one", "two"),
        handler="h",
    )
    at = parsed(run_at="2026-11-21T13:00:00+01:00", expires_at="2027-01-01T00:00:00Z")
    assert (at.run_at, at.expires_at) == (NOW, datetime(2027, 1, 1, tzinfo=UTC))


def test_null_is_absence_where_absence_has_no_value_of_its_own() -> None:
    others = ("payload", "priority", "binary", "message")
    names = [name for name in msgspec.structs.asdict(Enqueue(b"")) if name not in others]
    assert parsed(**dict.fromkeys(names)) == Enqueue(b"null")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"type": ""}, "/type"),
        ({"type": "x" * 256}, "/type"),
        ({"type": 5}, "/type"),
        ({"type": "a\x00b"}, "/type"),
        ({"type": "a\r\nhost: evil"}, "/type"),
        ({"correlation_id": "a\nb"}, "/correlation_id"),
        ({"idempotency_key": ""}, "/idempotency_key"),
        ({"unique_key": ""}, "/unique_key"),
        ({"delay_seconds": -1}, "/delay_seconds"),
        ({"delay_seconds": "5"}, "/delay_seconds"),
        ({"delay_seconds": True}, "/delay_seconds"),
        ({"delay_seconds": 1e12}, "/delay_seconds"),
        ({"delay_seconds": 1, "run_at": "2026-11-21T12:00:00Z"}, "/run_at"),
        ({"run_at": "2026-11-21T12:00:00"}, "/run_at"),
        ({"run_at": "tomorrow"}, "/run_at"),
        ({"run_at": 1763764800}, "/run_at"),
        ({"ttl_seconds": 0}, "/ttl_seconds"),
        ({"ttl_seconds": -1}, "/ttl_seconds"),
        ({"ttl_seconds": 5, "expires_at": "2027-01-01T00:00:00Z"}, "/expires_at"),
        ({"priority": 101}, "/priority"),
        ({"priority": -101}, "/priority"),
        ({"priority": 1.0}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"priority": 10**30}, "/priority"),
        ({"retry": []}, "/retry"),
        ({"retry": {"max_attempts": 0}}, "/retry/max_attempts"),
        ({"retry": {"max_attempts": True}}, "/retry/max_attempts"),
        ({"retry": {"tries": 1}}, "/retry/tries"),
        ({"retry": {"backoff": {"kind": "odd"}}}, "/retry/backoff/kind"),
        ({"timeout_seconds": 0}, "/timeout_seconds"),
        ({"timeout_seconds": 43_201}, "/timeout_seconds"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"x": 5}}, "/headers/x"),
        ({"headers": {"a b": "x"}}, "/headers/a b"),
        ({"headers": {"x/y": "1"}}, "/headers/x~1y"),
        ({"headers": {"x": "a\r\nb"}}, "/headers/x"),
        ({"tags": ["a", "a"]}, "/tags"),
        ({"tags": ["a", ""]}, "/tags/1"),
        ({"tags": ["x" * 101]}, "/tags/0"),
        ({"tags": [str(n) for n in range(11)]}, "/tags"),
        ({"tags": ["a", 5]}, "/tags/1"),
        ({"tags": "a"}, "/tags"),
        ({"handler": "No Name"}, "/handler"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"wait_seconds": 1}, "/wait_seconds"),
    ],
)
def test_a_violation_is_pointed_at(fields: dict[str, Any], pointer: str) -> None:
    assert pointers(refused(json.dumps({"payload": 1, **fields}).encode())) == [pointer]


def test_all_violations_are_named_at_once() -> None:
    assert pointers(refused(b'{"priority": true, "tags": [1], "what": 1}')) == [
        "/payload",
        "/priority",
        "/tags/0",
        "/what",
    ]
    assert pointers(refused(b'{"payload": 1, "priority": 500, "type": "", "handler": "X!"}')) == [
        "/type",
        "/priority",
        "/handler",
    ]


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b'[{"payload": 1}]'])
def test_only_an_object_is_a_task(body: bytes) -> None:
    assert pointers(refused(body)) == [""]


@pytest.mark.parametrize(
    "body",
    [
        b'{"payload": NaN}',
        b'{"payload": "\\ud800"}',
        b'{"payload": "\xff"}',
        b'{"payload": {"a":1,"a":2}}',
        b'{"payload": 1, "payload": 2}',
        b'{"payload": 1} {}',
        b"{payload: 1}",
        b"",
    ],
)
def test_what_is_not_i_json_is_malformed(body: bytes) -> None:
    assert refused(body).code == "malformed"


def test_a_number_beyond_all_floats_is_invalid_in_a_field_and_kept_in_a_payload() -> None:
    assert pointers(refused(b'{"payload": 1, "delay_seconds": 1e999}')) == ["/delay_seconds"]
    assert parse_enqueue(b'{"payload": 1e999}', max_payload_bytes=100).payload == b"1e999"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_128_levels_are_allowed_and_no_more(opening: str, closing: str) -> None:
    def body(depth: int) -> bytes:
        return b'{"payload":' + (opening * depth + "1" + closing * depth).encode() + b"}"

    assert parse_enqueue(body(128), max_payload_bytes=10_000).payload == (opening * 128 + "1" + closing * 128).encode()
    assert refused(body(129)).code == "malformed"
    assert refused(body(5_000)).code == "malformed"


def test_many_brackets_are_not_depth() -> None:
    payload = b"[" + b"[]," * 5000 + b'"[[[["]'
    assert parse_enqueue(b'{"payload":' + payload + b"}", max_payload_bytes=100_000).payload == payload


def test_the_limit_of_a_payload_is_exact_and_counts_bytes() -> None:
    assert parse_enqueue(b'{"payload":   "1234"}', max_payload_bytes=6).payload == b'"1234"'
    assert refused(b'{"payload": "12345"}', max_payload_bytes=6).code == "too_large"
    assert refused('{"payload": "ééé"}'.encode(), max_payload_bytes=7).code == "too_large"


def test_the_fingerprint_is_of_payload_bytes_and_options() -> None:
    plain = parsed(idempotency_key="a").fingerprint(b"key")
    assert len(plain) == 32
    assert parsed(idempotency_key="b").fingerprint(b"key") == plain
    assert parsed(priority=0, headers={}, tags=[]).fingerprint(b"key") == plain
    others = [
        parsed(payload=0),
        parse_enqueue(b'{"payload": [ ]}', max_payload_bytes=10),
        parse_enqueue(b'{"payload": []}', max_payload_bytes=10),
        parsed(type="t"),
        parsed(correlation_id="t"),
        parsed(delay_seconds=5),
        parsed(ttl_seconds=5),
        parsed(run_at="2026-11-21T12:00:00Z"),
        parsed(expires_at="2026-11-21T12:00:00Z"),
        parsed(priority=5),
        parsed(retry={"max_attempts": 5}),
        parsed(timeout_seconds=5),
        parsed(headers={"a": "b"}),
        parsed(tags=["a", "b"]),
        parsed(tags=["b", "a"]),
        parsed(handler="h"),
    ]
    assert len({plain, *(other.fingerprint(b"key") for other in others)}) == len(others) + 1
    assert parsed(headers={"a": "1", "b": "2"}).fingerprint(b"key") == parsed(headers={"b": "2", "a": "1"}).fingerprint(
        b"key"
    )
    assert parsed(retry={"max_attempts": 5, "backoff": {}}).fingerprint(b"key") == (
        parsed(retry={"backoff": {}, "max_attempts": 5}).fingerprint(b"key")
    )


def test_instants_are_judged_against_now() -> None:
    check_instants(parsed(run_at="2020-01-01T00:00:00Z"), NOW)
    check_instants(parsed(run_at="2027-11-22T12:00:00Z", expires_at="2026-11-21T12:00:01Z"), NOW)
    for field, text in (("run_at", "2027-11-22T12:00:01Z"), ("expires_at", "2026-11-21T12:00:00Z")):
        with pytest.raises(Refusal) as refusal:
            check_instants(parsed(**{field: text}), NOW)
        assert pointers(refusal.value) == [f"/{field}"]


def test_relative_times_count_from_now() -> None:
    assert parsed().run_at_from(NOW) == NOW
    assert parsed(delay_seconds=5).run_at_from(NOW) == NOW + timedelta(seconds=5)
    assert parsed(run_at="2020-01-01T00:00:00Z").run_at_from(NOW) == NOW
    assert parsed().expires_at_from(NOW) is None
    assert parsed(ttl_seconds=5).expires_at_from(NOW) == NOW + timedelta(seconds=5)
    assert parsed(expires_at="2020-01-01T00:00:00Z").expires_at_from(NOW) == datetime(2020, 1, 1, tzinfo=UTC)


def test_the_payload_of_another_body() -> None:
    assert payload_of(b'{"payload": [ 1 ]}', max_bytes=10) == b"[ 1 ]"
    assert payload_of(b"{}", max_bytes=10) is None
    with pytest.raises(Refusal, match="too_large"):
        payload_of(b'{"payload": "0123456789"}', max_bytes=10)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_task_or_a_refusal(body: bytes) -> None:
    for text in (body, b'{"payload": ' + body + b"}", b'{"payload": 1, "type": ' + body + b"}"):
        with contextlib.suppress(Refusal):
            parse_enqueue(text, max_payload_bytes=50)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)


@given(st.dictionaries(st.sampled_from(list(Enqueue.__struct_fields__)) | st.text(max_size=5), VALUES))
def test_any_fields_are_a_task_or_a_refusal(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).replace("Infinity", "1e999").encode()
    with contextlib.suppress(Refusal):
        parse_enqueue(body, max_payload_bytes=50).fingerprint(b"key")
