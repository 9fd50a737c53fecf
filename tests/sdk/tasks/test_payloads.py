"""From values to JSON and back by annotations: nothing is lost, nothing is guessed, and what does not fit is named."""

# ruff: noqa: UP007, UP045 (Union and Optional are what is tested)

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_client.tasks.faults import Faults
from sluice_client.tasks.payloads import Unserialisable, codec_of

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Node:
    value: int
    children: "list[Node]" = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Box(Generic[T]):
    content: T


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Address(TypedDict):
    city: str
    zip: NotRequired[str]


@dataclasses.dataclass
class Card:
    kind: Literal["card"]
    digits: str


@dataclasses.dataclass
class Cash:
    kind: Literal["cash"]
    digits: str


class Model(pydantic.BaseModel):
    n: int = pydantic.Field(gt=0)
    day: date


class Struct(msgspec.Struct):
    n: int
    day: date


def encode(annotation: Any, value: Any) -> tuple[Any, Faults]:
    faults: Faults = []
    return codec_of(annotation).encode(value, "", faults), faults


def decode(annotation: Any, value: Any) -> tuple[Any, Faults]:
    faults: Faults = []
    return codec_of(annotation).decode(value, "", faults), faults


def pointers(found: tuple[Any, Faults]) -> list[str]:
    return [one["pointer"] for one in found[1]]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
OFFSETS = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: TEXTS,
    bool: st.booleans(),
    type(None): st.none(),
    date: st.dates(),
    datetime: st.datetimes(timezones=st.none() | OFFSETS),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Rights: st.sampled_from([Rights.READ, Rights.READ | Rights.WRITE, Rights(0)]),
    Literal["a", 1, True, None]: st.sampled_from(["a", 1, True, None]),
    UserId: st.integers(),
}
KEYS = [str, int, UUID, date, Color, Level, Decimal]


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 3) -> tuple[Any, Any]:
    """A type, and a value of it."""
    annotation, values = draw(typed_strategies(depth))
    return annotation, draw(values)


@st.composite
def typed_strategies(draw: st.DrawFn, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
    kind = draw(st.sampled_from(["scalar", *CONTAINERS])) if depth else "scalar"
    if kind == "scalar":
        annotation = draw(st.sampled_from(list(SCALARS)))
        return annotation, SCALARS[annotation]
    annotation, values = draw(typed_strategies(depth - 1))
    return CONTAINERS[kind](draw, annotation, values)


def _dictionary(draw: Any, annotation: Any, values: Any) -> tuple[Any, Any]:
    key = draw(st.sampled_from(KEYS))
    return dict[key, annotation], st.dictionaries(SCALARS[key], values, max_size=3)  # type: ignore[valid-type]


def _set(draw: Any, _annotation: Any, _values: Any) -> tuple[Any, Any]:
    annotation = draw(st.sampled_from([int, str, date, Color]))
    return set[annotation], st.sets(SCALARS[annotation], max_size=4)  # type: ignore[valid-type]


CONTAINERS: dict[str, Any] = {
    "list": lambda _, annotation, values: (list[annotation], st.lists(values, max_size=3)),  # type: ignore[valid-type]
    "tuple": lambda _, annotation, values: (tuple[annotation, ...], st.lists(values, max_size=3).map(tuple)),  # type: ignore[valid-type]
    "row": lambda _, annotation, values: (tuple[annotation, str], st.tuples(values, TEXTS)),  # type: ignore[valid-type]
    "optional": lambda _, annotation, values: (Optional[annotation], st.none() | values),
    "box": lambda _, annotation, values: (Box[annotation], values.map(Box)),  # type: ignore[valid-type]
    "dict": _dictionary,
    "set": _set,
}


@given(typed_values())
def test_what_was_written_is_read_back_equal(typed: tuple[Any, Any]) -> None:
    annotation, value = typed
    try:
        codec = codec_of(annotation)
    except Unserialisable:  # Optional[Literal[…, None]] and the like cannot be told apart, and say so
        return
    faults: Faults = []
    text = json.dumps(codec.encode(value, "", faults), allow_nan=False)
    read = codec.decode(json.loads(text), "", faults)
    assert not faults and read == value and type(read) is type(value)


NODES = st.recursive(
    st.integers().map(Node), lambda some: st.builds(Node, st.integers(), st.lists(some, max_size=3)), max_leaves=8
)


@given(
    NODES,
    st.builds(Point, SCALARS[float], SCALARS[float]),
    st.fixed_dictionaries({"city": TEXTS}, optional={"zip": TEXTS}),
    st.sampled_from([Card("card", "1"), Cash("cash", "1")]),
)
def test_records_are_read_back_equal(node: Node, point: Point, address: Address, money: Card | Cash) -> None:
    for annotation, value in ((Node, node), (Point, point), (Address, address), (Union[Card, Cash], money)):
        faults: Faults = []
        codec = codec_of(annotation)
        assert codec.decode(json.loads(json.dumps(codec.encode(value, "", faults))), "", faults) == value and not faults


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | SCALARS[float] | TEXTS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES, typed_strategies(2))
def test_any_json_is_read_or_refused_with_a_pointer_and_never_an_exception(value: Any, typed: tuple[Any, Any]) -> None:
    try:
        codec = codec_of(typed[0])
    except Unserialisable:
        return
    faults: Faults = []
    codec.decode(value, "", faults)
    assert all(one["pointer"] == "" or one["pointer"].startswith("/") for one in faults)


@given(st.sets(st.integers(), min_size=2))
def test_equal_sets_give_equal_bytes_so_that_an_enqueue_can_be_repeated(numbers: set[int]) -> None:
    other = set(sorted(numbers, reverse=True))  # noqa: C414
    assert encode(set[int], numbers) == encode(set[int], other)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, True), (int, 1.0), (int, "1"), (int, None),
        (bool, 1), (bool, "true"),
        (float, True), (float, float("nan")), (float, float("inf")), (float, 2**53 + 1), (float, 10**400),
        (str, 1), (str, "\ud800"),
        (type(None), 0),
        (date, datetime(2026, 1, 1)), (datetime, date(2026, 1, 1)),
        (Decimal, Decimal("NaN")), (Decimal, 1),
        (Color, "red"), (Level, 1), (Literal["a", 1], True), (Literal["a", 1], "b"),
        (list[int], (1,)), (tuple[int, str], (1,)), (set[int], [1]), (dict[str, int], [("a", 1)]),
        (Any, (1,)), (Any, {1: 2}), (Any, {"a": {1}}), (Any, float("nan")), (Any, object()),
        (Node, {"value": 1}), (Point, (1.0, 2.0)), (Address, {"zip": "1"}), (Address, {"city": "x", "street": "y"}),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_type_is_not_written(annotation: Any, value: Any) -> None:
    assert encode(annotation, value)[1]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, True), (int, 1.0), (float, "1"), (float, True), (bool, 0),
        (date, "2026-1-1"), (date, "2026-02-30"), (date, "2026-01-01T00:00:00"), (date, "２０２６-01-01"),
        (datetime, "2026-01-01"), (datetime, "2026-01-01T25:00:00Z"), (datetime, 1), (datetime, "2026-01-01T00:00:00+99:00"),
        (timedelta, "5m"), (timedelta, "P"), (timedelta, "PT"), (timedelta, "P99999999999D"), (timedelta, 300),
        (UUID, "{12345678-1234-5678-1234-567812345678}"), (Decimal, "NaN"), (Decimal, "1_0"), (Decimal, 1.5),
        (Color, "green"), (Level, True), (Rights, 9), (Rights, -1), (Literal[1], True),
        (dict[int, int], {"01": 1}), (dict[int, int], {"x": 1}), (dict[UUID, int], {"x": 1}),
        (tuple[int, str], [1]), (set[int], {"a": 1}),
        (Node, {}), (Node, {"value": 1, "extra": 2}), (Node, [1]), (Point, [1, 2, 3]), (Address, {"city": 1}),
        (Union[Card, Cash], {"kind": "cheque", "digits": "1"}),
        (Model, {"n": 0, "day": "2026-01-01"}), (Struct, {"n": "1", "day": "2026-01-01"}),
    ],
)  # fmt: skip
def test_json_that_is_not_of_the_type_is_not_read(annotation: Any, value: Any) -> None:
    assert decode(annotation, value)[1]


def test_every_fault_has_its_pointer() -> None:
    found = decode(dict[str, Node], {"a/b": {"value": "x", "children": [{"value": 1}, {"values": 2}]}, "~": 3})
    assert pointers(found) == [
        "/a~1b/value",
        "/a~1b/children/1/values",
        "/a~1b/children/1/value",
        "/~0",
    ]
    assert pointers(encode(list[tuple[int, Point | None]], [(1, None), (2, Point(1.0, float("inf")))])) == ["/1/1/1"]


def test_a_union_reports_what_is_wrong_inside_the_only_member_that_fits() -> None:
    assert decode(Optional[Node], {"value": "x"}) == (
        None,
        [{"pointer": "/value", "detail": "expected an integer, got a value of type str"}],
    )


@pytest.mark.parametrize(
    "annotation",
    [
        object, bytes, complex, type, list[object], dict[tuple[int, int], int], dict[bool, int], dict[str | None, int],
        Union[str, date], Union[str, Color], Union[list[int], tuple[int, ...]], Union[date, Literal["2026-01-01"]],
        Union[Node, Box[int]], Union[Model, Node], Literal[b"x"], Box[T], Any | object,  # type: ignore[valid-type]
    ],
)  # fmt: skip
def test_an_annotation_that_has_no_json_or_more_than_one_reading_is_refused(annotation: Any) -> None:
    with pytest.raises(Unserialisable):
        codec_of(annotation)


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [
        (Union[date, datetime, UUID, int, None], date(2026, 1, 2), "2026-01-02"),
        (Union[Literal["never"], date], "never", "never"),
        (Union[float, int], 3, 3),
        (Union[Card, Cash], Cash("cash", "5"), {"kind": "cash", "digits": "5"}),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Annotated[int, "documentation"], 3, 3),
        (timedelta, timedelta(days=-1, microseconds=5), "-P0DT86399.999995S"),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (Decimal, Decimal("1.10"), "1.10"),
        (dict[int, str], {-3: "x"}, {"-3": "x"}),
        (int, 10**60, 10**60),
        (Model, Model(n=1, day=date(2026, 1, 1)), {"n": 1, "day": "2026-01-01"}),
        (Struct, Struct(1, date(2026, 1, 1)), {"n": 1, "day": "2026-01-01"}),
        (list[Model], [Model(n=1, day=date(2026, 1, 1))], [{"n": 1, "day": "2026-01-01"}]),
    ],
)
def test_how_values_are_written(annotation: Any, value: Any, written: Any) -> None:
    assert encode(annotation, value) == (written, [])
    assert decode(annotation, written) == (value, [])


def test_instants_of_other_languages_are_read() -> None:
    expected = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    for text in ("2026-01-01T12:00:00.5Z", "2026-01-01t12:00:00.500000000z", "2026-01-01T14:00:00.5+02:00"):
        assert decode(datetime, text) == (expected, [])


def test_libraries_validate_what_is_theirs_both_ways() -> None:
    wrong = Model.model_construct(n=-1, day=date(2026, 1, 1))
    assert pointers(encode(Model, wrong)) == ["/n"]
    assert pointers(decode(list[Model], [{"n": 1}])) == ["/0/day"]
    assert pointers(encode(Struct, Struct("1", date(2026, 1, 1)))) == ["/n"]  # type: ignore[arg-type]
    assert pointers(decode(dict[str, Struct], {"a": {"n": 1, "day": "x"}})) == ["/a/day"]
    assert pointers(encode(Annotated[int, pydantic.Field(gt=0)], -1)) == [""]
    assert pointers(decode(Annotated[int, msgspec.Meta(gt=0)], -1)) == [""]


def test_a_subclass_would_lose_its_own_fields_and_is_refused() -> None:
    @dataclasses.dataclass
    class More(Node):
        extra: int = 0

    assert encode(Node, More(1))[1]
