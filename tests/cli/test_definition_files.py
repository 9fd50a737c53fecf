"""A file of definitions as the command reads it, and what it says of a file that is wrong."""

from typing import Any

import pytest

from app.cli.definition_files import read
from app.cli.yaml_faults import Faults


def document(text: str, overlay: str | None = None, **environment: str) -> dict[str, Any]:
    return read(text, overlay, environment).document


NO_SECTION = "is not a section: the sections are handlers, limits, named_limits, queues, schedules, sources"


def faults(text: str, overlay: str | None = None, **environment: str) -> list[tuple[int, str, str]]:
    with pytest.raises(Faults) as found:
        read(text, overlay, environment)
    return [(fault.line, fault.pointer, fault.detail) for fault in found.value.faults]


def schedule(value: str, **environment: str) -> Any:
    """What a schedule's field has become."""
    return document(f"schedules:\n  a:\n    field: {value}\n", **environment)["schedules"]["a"]["field"]


@pytest.mark.parametrize("cron", ["*/5 * * * *", "* * * * *", "*5 * * * *", "*abc"])
def test_a_cron_expression_without_quotes_is_told_to_take_some(cron: str) -> None:
    words = f'to YAML, text that begins with * is an alias; quote it: "{cron}"'
    assert faults(f"schedules:\n  a:\n    cron: {cron}  # often\n") == [(3, "", words)]


def test_an_at_sign_without_quotes_is_told_to_take_some() -> None:
    words = 'to YAML, text that begins with @ is reserved; quote it: "@daily"'
    assert faults("schedules:\n  a:\n    cron: @daily\n") == [(3, "", words)]


@pytest.mark.parametrize("text", ["queues:\n\ta: {}\n", "queues:\n  a:\n\t  x: 1\n", "queues:\n  a:\n  \tx: 1\n"])
def test_a_tab_is_called_a_tab(text: str) -> None:
    [(line, _, words)] = faults(text)
    assert (line, words) == (text[: text.index("\t")].count("\n") + 1, "a tab: YAML is indented with spaces only")


def test_a_key_that_is_there_twice_is_refused_wherever_it_is() -> None:
    assert faults("queues:\n  a: {}\n  b:\n    x: 1\n    x: 2\n  a: {}\n") == [
        (5, "/queues/b/x", "is a duplicate, first given in line 4"),
        (6, "/queues/a", "is a duplicate, first given in line 2"),
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("-0.5", -0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ('"5"', "5"),
        ("'true'", "true"),
        ("0 6 1 * *", "0 6 1 * *"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_a_scalar_is_what_it_looks_like(written: str, value: Any) -> None:
    found = schedule(written)
    assert (type(found), found) == (type(value), value)


def test_variables_come_from_the_environment() -> None:
    assert schedule("${HOST}/x", HOST="http://h") == "http://h/x"
    assert schedule('"a ${A} b ${B}"', A="1", B="2") == "a 1 b 2"
    assert schedule("${LIMIT}", LIMIT="5") == 5, "without quotes it is what it looks like"
    assert schedule('"${LIMIT}"', LIMIT="5") == "5"
    assert schedule("$${A} $A") == "${A} $A"
    assert schedule("${A}", A="a: *b\n- c") == "a: *b\n- c", "it never becomes structure"
    assert schedule('"${A}"', A="${B}") == "${B}", "it is put in once"


def test_a_variable_that_is_not_there_is_named_with_its_line() -> None:
    text = "queues:\n  a:\n    description: ${ONE} ${TWO}\n  b:\n    handler: ${TWO}\n"
    assert faults(text, ONE="") == [
        (3, "/queues/a/description", "the environment variable ONE is empty or not set"),
        (3, "/queues/a/description", "the environment variable TWO is empty or not set"),
        (5, "/queues/b/handler", "the environment variable TWO is empty or not set"),
    ]


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${1}", "x ${A:-b}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    [(line, where, words)] = faults(f"queues:\n  a:\n    description: '{text}'\n")
    assert (line, where) == (3, "/queues/a/description") and "write $${" in words


def test_within_braces_a_variable_wants_quotes() -> None:
    assert faults("queues: {a: {handler: ${H}}}\n") == [
        (1, "", 'within { } and [ ], a variable must be quoted: "${NAME}"')
    ]


def test_variables_of_overlays_that_are_not_chosen_are_not_asked_for() -> None:
    text = "queues:\n  a: {handler: '${DEV}'}\noverlays:\n  prod:\n    queues:\n      a: {handler: '${PROD}'}\n"
    assert document(text, DEV="d") == {"queues": {"a": {"handler": "d"}}}
    assert document(text, "prod", PROD="p") == {"queues": {"a": {"handler": "p"}}}


@pytest.mark.parametrize(
    "written", ["whsec_abc", "'whsec_${A}'", "${A}${B}", "$${A}", "!!str whsec_abc", "${A} whsec_abc", "5"]
)
def test_a_secret_that_is_not_a_variable_alone_is_refused(written: str) -> None:
    found = faults(f"handlers:\n  a:\n    secret: {written}\n", A="x", B="y")
    assert any("a file must not contain secrets" in words for _, _, words in found) or "tag" in found[0][2]
    assert all(line == 3 and "abc" not in words for line, _, words in found)


def test_the_values_of_headers_hold_a_variable_and_stay_text() -> None:
    text = "handlers:\n  a:\n    headers:\n      x-a: Bearer ${A}\n      x-b: ${A}\n      x-c: true\n"
    [(line, where, words)] = faults(text, A="5")
    assert (line, where) == (6, "/handlers/a/headers/x-c") and "use an environment variable" in words
    found = document(text.rpartition("      x-c")[0], A="5")
    assert found["handlers"]["a"]["headers"] == {"x-a": "Bearer 5", "x-b": "5"}


OVERLAID = """
queues:
  a: {max_concurrency: 1, description: one, retry: {max_attempts: 3, backoff: {kind: fixed, seconds: 1}}}
  b: {}
schedules:
  s: {queue: a, payload: {x: 1, y: 2}, catch_up: {mode: all, window_seconds: 60}}
overlays:
  prod:
    queues:
      a: {max_concurrency: 9, retry: {backoff: {kind: list, seconds: [1, 2]}}}
      b: null
      c: {description: new}
    schedules:
      s: {payload: {x: 3}, catch_up: {mode: none}}
  dev: {}
"""


def test_an_overlay_is_merged_field_by_field_and_leaves_out_what_it_makes_null() -> None:
    assert document(OVERLAID, "dev") == document(OVERLAID)
    assert document(OVERLAID, "prod") == {
        "queues": {
            "a": {
                "max_concurrency": 9,
                "description": "one",
                "retry": {"max_attempts": 3, "backoff": {"kind": "list", "seconds": [1, 2]}},
            },
            "c": {"description": "new"},
        },
        "schedules": {"s": {"queue": "a", "payload": {"x": 3}, "catch_up": {"mode": "none", "window_seconds": 60}}},
    }


def test_lines_are_those_of_the_overlay_where_it_has_the_say() -> None:
    found = read(OVERLAID, "prod", {})
    assert found.line_of("/queues/a/max_concurrency") == 10
    assert found.line_of("/queues/a/description") == 3
    assert found.line_of("/queues/c/nothing/there") == 12
    assert found.line_of("/handlers/x") == 1


def test_overlays_are_judged_whether_they_are_chosen_or_not() -> None:
    assert faults("overlays:\n  dev: {queue: {}}\n  prod: 3\n") == [
        (
            2,
            "/overlays/dev/queue",
            "is not a section: the sections are handlers, limits, named_limits, queues, schedules, sources",
        ),
        (3, "/overlays/prod", "expected the sections named_limits, handlers, queues, schedules, sources, limits"),
    ]
    assert faults("queues: {}\noverlays: {dev: {}, prod: {}}", "stage") == [
        (2, "/overlays", "there is no overlay stage; the overlays are: dev, prod")
    ]


def test_anchors_and_merge_keys_are_read() -> None:
    text = "queues:\n  a: &a {max_concurrency: 5, description: x}\n  b: {<<: *a, description: y}\n  c: *a\n"
    assert document(text)["queues"]["b"] == {"max_concurrency": 5, "description": "y"}
    assert document(text)["queues"]["c"] == {"max_concurrency": 5, "description": "x"}


@pytest.mark.ci
def test_aliases_that_grow_without_bounds_are_refused() -> None:
    assert faults("queues: &a\n  b: *a\n") == [(1, "/queues/b", "an alias contains itself")]
    bomb = "queues:\n  a: &l0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    [(_, _, words)] = faults(bomb)
    assert "including aliases" in words
    assert faults("queues: " + "[" * 5_000) == [(1, "", "is nested too deep")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", (1, "", "expected the sections named_limits, handlers, queues, schedules, sources, limits")),
        ("- a", (1, "", "expected the sections named_limits, handlers, queues, schedules, sources, limits")),
        ("queues:\n", (1, "/queues", "is empty: leave it out, or write {} for none")),
        ("queues: [1]\n", (1, "/queues", "expected a mapping")),
        ("tasks: {}\n", (1, "/tasks", NO_SECTION.replace("queues", "overlays, queues"))),
        ("queues: {a: {x: !foo 5}}", (1, "/queues/a/x", "the tag !foo is not supported: write the value, quoted if it is text")),
        ("owner: {a: b}", (1, "/owner", "expected a name, of the team or of the file")),
        ("queues: {}\nowner:", (2, "/owner", "expected a name, of the team or of the file")),
        ("overlays: {dev: {owner: a}}", (1, "/overlays/dev/owner", NO_SECTION)),
        ("queues:\n  a:\n  b: {}", (2, "/queues/a", "is empty: for a definition with default values only, write {}")),
        ("queues:\n  200: {}", (2, "/queues", "the key 200 is not text: quote it")),
        ("queues: {}\n---\nqueues: {}", (2, "", "a second document (---) begins here; a file can have only one")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, fault: tuple[int, str, str]) -> None:
    assert faults(text) == [fault]


@pytest.mark.parametrize("overlay", [None, "dev"])
def test_the_owner_is_the_file_s_whatever_overlay_is_chosen(overlay: str | None) -> None:
    text = "owner: ${TEAM}\nqueues: {a: {}}\noverlays: {dev: {queues: {a: null}}}"
    found = read(text, overlay, {"TEAM": "billing"})
    assert found.document["owner"] == "billing" and found.line_of("/owner") == 1
    assert "owner" not in read("queues: {}", None, {}).document


def test_an_empty_definition_is_not_left_out_by_an_overlay_that_does_not_speak_of_it() -> None:
    with pytest.raises(Faults) as found:
        read("queues: {a: }\noverlays: {dev: {queues: {b: {}}}}", "dev", {})
    assert found.value.faults[0].pointer == "/queues/a"


@pytest.mark.parametrize("name", ["SLUICE_KEY", "SLUICE_DATABASE_URL", "SLUICE_ANYTHING"])
def test_variables_of_ours_never_stand_in_definitions(name: str) -> None:
    with pytest.raises(Faults) as found:
        read(f"queues: {{a: {{description: 'x ${{{name}}}'}}}}", None, {name: "hush"})
    [fault] = found.value.faults
    assert (fault.pointer, name in fault.detail, "hush" in fault.detail) == ("/queues/a/description", True, False)
