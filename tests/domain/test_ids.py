"""Ids of tasks and keys."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import IdMaker, make_api_key, parse_api_key, parse_uuid


@given(st.lists(st.integers(0, 2**48 - 10), min_size=2, max_size=50))
def test_ids_rise_whatever_the_clock_does(clock: list[int]) -> None:
    maker = IdMaker()
    made = [maker.uuid7(now_ms) for now_ms in clock]
    assert made == sorted(set(made))
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    assert uuid.UUID(made[0]).int >> 80 == clock[0]


def test_ids_rise_past_the_end_of_the_random_bits() -> None:
    maker = IdMaker(lambda count: b"\xff" * count)
    made = [maker.uuid7(5)]
    maker._rand = (1 << 74) - 2
    made += [maker.uuid7(5), maker.uuid7(5), maker.uuid7(6), maker.uuid7(9)]
    assert made == sorted(set(made))
    assert all(uuid.UUID(text).version == 7 for text in made)


def test_ids_made_together_rise_among_those_made_alone() -> None:
    maker = IdMaker()
    made = [maker.uuid7(5), *maker.uuid7s(5, 3000), maker.uuid7(5), *maker.uuid7s(6, 2), *maker.uuid7s(4, 2)]
    assert len(made) == 3006 and made == sorted(set(made))
    assert all(str(uuid.UUID(text)) == text and uuid.UUID(text).version == 7 for text in made)


def test_two_processes_make_different_ids() -> None:
    assert len({IdMaker().uuid7(1) for _ in range(1000)}) == 1000


def test_only_a_hyphened_uuid_is_one() -> None:
    text = "019AA893-0a00-7238-9930-16b5add0f344"
    assert parse_uuid(text) == text.lower()
    for other in (
        "",
        "x",
        text[1:],
        text + "0",
        text.replace("-", ""),
        f"{{{text}}}",
        text + "\n",
        "\u0661" + text[1:],
    ):
        assert parse_uuid(other) is None


def test_a_key_is_known_by_its_checksum() -> None:
    key = make_api_key()
    assert parse_api_key(key.text) == key
    assert key.text.startswith(f"slk_{key.id}_")
    assert len(key.digest) == 32
    assert key.text not in repr(key)
    for index in range(4, len(key.text)):
        swapped = "a" if key.text[index] != "a" else "b"
        assert parse_api_key(key.text[:index] + swapped + key.text[index + 1 :]) is None
    for other in ("", "slk_", key.text[:-1], key.text + "a", key.text.upper(), " " + key.text, key.text + "\n"):
        assert parse_api_key(other) is None


def test_keys_differ() -> None:
    assert len({make_api_key().id for _ in range(500)}) == 500
