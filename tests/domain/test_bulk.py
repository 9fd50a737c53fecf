"""Requests with many tasks: what they may make this process hold before they are judged."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.domain import bulk
from app.domain.batches import split_batch, split_tasks
from app.domain.bulk import MANY_COMMAS, MAX_BULK_TASKS, parse_item, parse_together, split_bulk, task_spans
from app.domain.errors import Refusal
from app.domain.followups import split_page

Split = Callable[[bytes], Any]
SPLITS: dict[str, Split] = {
    "bulk": split_bulk,
    "tasks of a batch": split_tasks,
    "batch": lambda body: split_batch(body[:-1] + b',"queue":"q"}', 2**20),
    "follow-ups": lambda body: split_page(body, 2**20),
}


def refusal(split: Split, tasks: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        split(b'{"tasks":[' + tasks + b"]}")
    return caught.value


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_no_span_is_made_of_a_million_tasks(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_SPANS", None)
    assert f"more than {MAX_BULK_TASKS}" in (found := refusal(split, b"{}," * 1_000_000 + b"{}")).detail or (
        found.errors[0].pointer == "/tasks"
    )
    assert refusal(split, b"{}," * 5_000 + b"1," * 1_000_000 + b"1").errors[0].pointer == "/tasks/5000"


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_one_task_too_many_is_refused(split: Split) -> None:
    assert refusal(split, b"{}," * MAX_BULK_TASKS + b"{}").code in ("invalid", "too_large")


def test_many_commas_within_tasks_are_no_harm() -> None:
    item = b'{"payload":[' + b"0," * 100 + b'{}],"type":"a"}'
    spans = task_spans(msgspec.Raw(b"[" + b",".join([item] * MAX_BULK_TASKS) + b"]"), MAX_BULK_TASKS)
    assert spans is not None and len(spans) == MAX_BULK_TASKS and bytes(spans[-1]) == item
    assert MAX_BULK_TASKS * 100 > MANY_COMMAS


def test_items_that_are_no_objects_are_judged_one_by_one_where_they_are_few() -> None:
    spans, _ = split_bulk(b'{"tasks":[1,{"payload":1},"a"]}')
    assert [bytes(span) for span in spans] == [b"1", b'{"payload":1}', b'"a"']


FAULTY = (
    *(b"3", b"{}", b'{"payload":1,"payload":2}', b'{"payload":"\\ud800"}', b'{"payload":"\xff"}', b'{"payload":NaN}'),
    *(b'{"payload":1,"typo":1}', b'{"payload":1,"priority":101}', b'{"payload":1,"tags":["a","a"]}'),
    b'{"payload":"' + b"x" * 200 + b'"}',
    b'{"payload":' + b"[" * 129 + b"]" * 129 + b"}",
)
SOUND = (
    *(b'{"payload":null}', b'{"payload": {"a" : [1, "\\u00e9"]}}', b'{"priority":3,"payload":"x","tags":["a"]}'),
    b'{"payload":' + b"[" * 90 + b"]" * 90 + b"}",
)


def spans_of(*tasks: bytes) -> list[msgspec.Raw]:
    return [msgspec.Raw(task) for task in tasks]


def test_tasks_parsed_together_are_those_parsed_one_by_one() -> None:
    spans = spans_of(*SOUND * 3)
    assert parse_together(spans, 190) == [parse_item(span, n, 190) for n, span in enumerate(spans)]


@pytest.mark.parametrize("faulty", FAULTY)
@pytest.mark.parametrize("place", range(len(SOUND) + 1))
def test_a_faulty_task_among_others_is_noticed_wherever_it_is(faulty: bytes, place: int) -> None:
    assert parse_together(spans_of(*SOUND[:place], faulty, *SOUND[place:]), 190) is None


def test_tasks_too_large_to_be_parsed_in_one_go_are_parsed_one_by_one() -> None:
    large = b'{"payload":"' + b"x" * (bulk.MAX_TOGETHER_BYTES // 2) + b'"}'
    assert parse_together(spans_of(large), 2**20) is not None
    assert parse_together(spans_of(large, large), 2**20) is None
