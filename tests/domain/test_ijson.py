"""What the parser really refuses. The others would not: this table is why jiter has the verdict."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Refusal
from app.domain.ijson import is_deeper, nests_deeper, parse_ijson

REFUSED = {
    "invalid UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\x80"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "invalid UTF-8 in a key": b'{"\xff": 1}',
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udc00"',
    "a high surrogate before no low one": b'"\\ud800\\u0041"',
    "a lone surrogate in a key": b'{"\\ud800": 1}',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "-Infinity": b"-Infinity",
    "a duplicate key": b'{"a": 1, "a": 2}',
    "a duplicate key in another spelling": b'[{"a": 1, "\\u0061": 2}]',
    "two texts": b"{}{}",
    "trailing text": b"1 x",
    "a byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": '"a"'.encode("utf-16"),
    "a leading zero": b"01",
    "a plus sign": b"+1",
    "a bare fraction": b".5",
    "an open fraction": b"1.",
    "an open exponent": b"1e",
    "a control character in a string": b'"a\x01"',
    "a tab in a string": b'"a\tb"',
    "a bad escape": b'"\\x41"',
    "a trailing comma": b"[1,]",
    "a comment": b"1 /* one */",
    "single quotes": b"'a'",
    "a form feed between": b"\x0c1",
    "a no-break space between": b"\xc2\xa01",
    "an unfinished text": b"[1",
    "nothing": b"",
    "an integer of 5,000 digits": b"9" * 5000,
    "depth beyond the parser's own limit": b"[" * 100_000,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_i_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_ijson(body)
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b' {"a": [1, 2.5e3, "\\ud83d\\ude00", "\\u0000"]} \r\n\t',
        b"9" * 400,
        b'"\xef\xbf\xbf"',
        b'"\x7f"',
        b"1e999",
    ],
)
def test_what_is_i_json_passes(body: bytes) -> None:
    parse_ijson(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.booleans())
def test_every_json_value_passes_as_itself(value: object, escaped: bool) -> None:
    assert parse_ijson(json.dumps(value, ensure_ascii=escaped).encode()) == value


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON, st.integers(0, 6))
def test_depth_is_counted_as_recursion_would(value: object, limit: int) -> None:
    deep = depth_of(value) > limit
    assert is_deeper(value, limit) == deep
    for escaped in (True, False):
        assert nests_deeper(json.dumps(value, ensure_ascii=escaped).encode(), limit) == deep


@given(st.lists(st.text(alphabet='[]{}"\\x'), max_size=20), st.integers(0, 3))
def test_brackets_in_strings_are_no_depth(texts: list[str], limit: int) -> None:
    assert nests_deeper(json.dumps([texts, dict.fromkeys(texts, texts)]).encode(), limit) == (
        depth_of([texts, dict.fromkeys(texts, texts)]) > limit
    )
