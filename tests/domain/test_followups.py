"""Follow-up documents: the outer object, and each task of it."""

import json
from typing import Any

import msgspec
import pytest

from app.domain.answers import FOLLOWUPS_TYPE, MAX_FOLLOWUP_BYTES, Answer, is_followups
from app.domain.errors import FieldError, Refusal
from app.domain.followups import MAX_FOLLOWUP_TASKS, OnComplete, parse_followup, split_page

MIB = 1_048_576
TASK = {"queue": "work", "idempotency_key": "k1", "payload": {"n": 1}}


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def refused(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as found:
        split_page(body, MIB)
    return found.value


def task_refused(task: Any, *, index: int = 0, max_payload_bytes: int = MIB) -> Refusal:
    span = msgspec.Raw(task if isinstance(task, bytes) else json.dumps(task).encode())
    with pytest.raises(Refusal) as found:
        parse_followup(span, index, max_payload_bytes)
    return found.value


@pytest.mark.parametrize(
    ("status", "content_type", "names"),
    [
        (200, FOLLOWUPS_TYPE, True),
        (299, f"{FOLLOWUPS_TYPE.upper()} ; charset=utf-8", True),
        (200, "application/json", False),
        (200, FOLLOWUPS_TYPE + "2", False),
        (200, None, False),
        (199, FOLLOWUPS_TYPE, False),
        (300, FOLLOWUPS_TYPE, False),
        (500, FOLLOWUPS_TYPE, False),
    ],
)
def test_only_a_2xx_of_the_media_type_names_follow_ups(status: int, content_type: str | None, names: bool) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert is_followups(Answer(status, headers, b"{}")) is names


def test_a_document_is_split_and_every_span_keeps_its_bytes() -> None:
    body = b"""{"tasks" : [ {"queue":"a",  "n": 1.50}, 2 ], "result" : {"a" : 1e2},
        "next": "page 2", "on_complete": {"payload": [ 1,2 ], "queue": "done"}}"""
    page = split_page(body, MIB)
    assert [bytes(span) for span in page.spans] == [b'{"queue":"a",  "n": 1.50}', b"2"]
    assert page.result == b'{"a" : 1e2}'
    assert page.next == "page 2"
    assert page.on_complete == OnComplete("done", b"[ 1,2 ]")


def test_what_a_document_leaves_out_is_absent_and_a_null_result_is_a_result() -> None:
    page = split_page(b"{}", MIB)
    assert (page.result, page.spans, page.next, page.on_complete) == (None, [], None, None)
    page = split_page(b'{"result": null, "tasks": [], "next": null, "on_complete": null}', MIB)
    assert (page.result, page.spans, page.next, page.on_complete) == (b"null", [], None, None)


@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        (b"", "malformed", None),
        (b"{", "malformed", None),
        (b"{} {}", "malformed", None),
        (b'{"result": NaN}', "malformed", None),
        (b'{"result": "\xff"}', "malformed", None),
        (b'{"result": "\\ud800"}', "malformed", None),
        (b'{"result": {"a": 1, "a": 2}}', "malformed", None),
        (b'{"tasks": [], "tasks": []}', "malformed", None),
        (b'{"tasks": [1], "tasks": [2]}', "malformed", None),
        (b'{"next": "a", "next": "a"}', "malformed", None),
        (b'{"result": ' + b"[" * 129 + b"]" * 129 + b"}", "malformed", None),
        (b'{"result": ' + b"[" * 9999 + b"]" * 9999 + b"}", "malformed", None),
        (b"[]", "invalid", ""),
        (b"null", "invalid", ""),
        (b'{"task": []}', "invalid", "/task"),
        (b'{"tasks": {}}', "invalid", "/tasks"),
        (b'{"tasks": null}', "invalid", "/tasks"),
        (b'{"next": 7}', "invalid", "/next"),
        (b'{"next": ""}', "invalid", "/next"),
        (b'{"next": "a\\r\\nb"}', "invalid", "/next"),
        (document(next="x" * 1025), "invalid", "/next"),
        (b'{"on_complete": []}', "invalid", "/on_complete"),
        (b'{"on_complete": {"queue": "q"}}', "invalid", "/on_complete/payload"),
        (b'{"on_complete": {"payload": 1}}', "invalid", "/on_complete/queue"),
        (b'{"on_complete": {"queue": "q", "payload": 1, "tags": []}}', "invalid", "/on_complete/tags"),
        (b'{"on_complete": {"queue": "No Name", "payload": 1}}', "invalid", "/on_complete/queue"),
        (document(on_complete={"queue": "q", "payload": "x" * MIB}), "invalid", "/on_complete/payload"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused_with_its_place(body: bytes, code: str, where: str | None) -> None:
    refusal = refused(body)
    assert refusal.code == code
    assert [error.pointer for error in refusal.errors] == ([] if where is None else [where])


def test_the_longest_cursor_and_one_beyond_ascii_are_taken() -> None:
    assert split_page(document(next="x" * 1024), MIB).next == "x" * 1024
    assert split_page(document(next="Zürich"), MIB).next == "Zürich"


def test_more_tasks_or_bytes_than_a_document_may_have_are_too_large() -> None:
    at_the_limit = b'{"tasks": [' + b",".join([b"1"] * MAX_FOLLOWUP_TASKS) + b"]}"
    assert len(split_page(at_the_limit, MIB).spans) == MAX_FOLLOWUP_TASKS
    assert refused(at_the_limit.replace(b"[1,", b"[1,1,", 1)).code == "too_large"

    padding = b" " * (MAX_FOLLOWUP_BYTES - 2)
    assert split_page(b"{" + padding + b"}", MIB).spans == []
    assert refused(b"{ " + padding + b"}").code == "too_large"


def test_bytes_of_the_tasks_that_also_stand_elsewhere_mislead_nobody() -> None:
    page = split_page(b'{"result": {"[1]": [1], "0": [1]}, "tasks": [1]}', MIB)
    assert page.result == b'{"[1]": [1], "0": [1]}'
    assert [bytes(span) for span in page.spans] == [b"1"]
    assert refused(b'{"result": {"a": [], "a": []}, "tasks": []}').code == "malformed"


def test_a_fault_in_a_task_is_left_to_the_verdict_on_that_task() -> None:
    page = split_page(b'{"tasks": [{"a": 1, "a": 2}, "\xff"]}', MIB)
    assert len(page.spans) == 2
    for index, span in enumerate(page.spans):
        with pytest.raises(Refusal) as found:
            parse_followup(span, index, MIB)
        assert found.value.code == "invalid"
        assert [error.pointer for error in found.value.errors] == [f"/tasks/{index}"]


def test_a_task_keeps_the_bytes_of_its_payload_and_all_options() -> None:
    span = b'{"payload": {"b" : 1.0,"a":2}, "queue": "work", "idempotency_key": "k", "type": "t", "priority": 5}'
    followup = parse_followup(msgspec.Raw(span), 3, MIB)
    assert followup.queue == "work"
    assert followup.task.payload == b'{"b" : 1.0,"a":2}'
    assert (followup.task.idempotency_key, followup.task.type, followup.task.priority) == ("k", "t", 5)


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in TASK.items() if field != name}


@pytest.mark.parametrize(
    ("task", "wheres"),
    [
        (7, [""]),
        (without("queue"), ["/queue"]),
        (without("idempotency_key"), ["/idempotency_key"]),
        (without("payload"), ["/payload"]),
        ({}, ["/idempotency_key", "/payload", "/queue"]),
        (TASK | {"idempotency_key": None}, ["/idempotency_key"]),
        (TASK | {"idempotency_key": ""}, ["/idempotency_key"]),
        (TASK | {"idempotency_key": "a\n"}, ["/idempotency_key"]),
        (TASK | {"queue": "No Name"}, ["/queue"]),
        (TASK | {"queue": 1, "priority": "high", "colour": "red"}, ["/colour", "/priority", "/queue"]),
        (TASK | {"queue": "", "priority": 101, "tags": ["a", ""]}, ["/priority", "/queue", "/tags/1"]),
        (TASK | {"delay_seconds": -1}, ["/delay_seconds"]),
        (TASK | {"headers": {"sluice-cursor": "x"}}, ["/headers/sluice-cursor"]),
    ],
)
def test_a_task_that_breaks_rules_is_refused_with_every_place(task: Any, wheres: list[str]) -> None:
    refusal = task_refused(task, index=12)
    assert refusal.code == "invalid"
    assert sorted(error.pointer for error in refusal.errors) == [f"/tasks/12{where}" for where in wheres]


def test_a_payload_too_large_or_too_deep_is_a_fault_of_its_task() -> None:
    large = task_refused(TASK | {"payload": "12345678"}, max_payload_bytes=9)
    assert large.code == "invalid"
    assert large.errors == (FieldError("/tasks/0/payload", "the payload has 10 bytes, at most 9 are allowed"),)
    deep = b'{"queue": "q", "idempotency_key": "k", "payload": ' + b"[" * 129 + b"]" * 129 + b"}"
    assert [error.pointer for error in task_refused(deep).errors] == ["/tasks/0"]
