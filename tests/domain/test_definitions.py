"""Definitions of queues and handlers: their rules and their ETags."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.backoff import Backoff, RetryPolicy
from app.domain.bodies import read
from app.domain.conditions import Conditions
from app.domain.errors import CODES, FieldError, Refusal, invalid, pointer
from app.domain.handlers import (
    HandlerBody,
    HandlerDefinition,
    handler_etag,
    is_secret,
)
from app.domain.headers import check_headers, reserved_header
from app.domain.names import is_name
from app.domain.queues import (
    QueueBody,
    QueueDefinition,
    Retention,
    queue_etag,
    queue_to_dict,
)
from app.domain.retries import DEFAULT_RETRY, check_retry, effective_retry, retry_to_dict
from app.domain.urls import url_problem

HANDLER = HandlerDefinition("https://example.com/hook")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *((name, True) for name in ("a", "A", "0.a_B-c", "a" * 100)),
        *((name, False) for name in ("", "a" * 101, "-a", ".a", "_a", "a b", "a/b", "a\n", "é", "a\x00")),
    ],
)
def test_names(name: str, good: bool) -> None:
    assert is_name(name) == good


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "https://example.com:8443/x?y=1",
        "http://127.0.0.1:9000/",
        "http://[::1]:80/a",
        "http://a/%20",
        "HTTP://A/",
    ],
)
def test_urls_that_can_be_called(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://a",
        "file:///etc/passwd",
        "http://",
        "http:///a",
        "http://a b",
        "http://a\n",
        "//a",
        "http://u:p@a/",
        "http://u@a/",
        "http://a/#f",
        "http://a:0/",
        "http://a:99999/",
        "http://a:x/",
        "http://[::1",
        "http://é/",
        "http://a\\b/",
        "http://a/" + "x" * 2048,
        "javascript:alert(1)",
        "http://a/\x00",
    ],
)
def test_urls_that_cannot(url: str) -> None:
    assert url_problem(url) is not None


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-type",
        "Content-Anything",
        "connection",
        "Transfer-Encoding",
        "webhook-id",
        "Sluice-X",
        "traceparent",
        "TraceState",
        "te",
        "expect",
        "upgrade",
        "idempotency-key",
        "x-correlation-id",
        "accept-encoding",
        "proxy-x",
        "webhook_signature",
        "Sluice_Lease_Token",
        "content_length",
        "transfer_encoding",
        "x_correlation-id",
        "webhook.id",
    ],
)
def test_reserved_headers(name: str) -> None:
    assert reserved_header(name)


def test_two_headers_that_a_handler_may_take_for_one_are_refused() -> None:
    for twin in ("X-Token", "x_token", "x.Token"):
        [error] = check_headers({"x-token": "a", twin: "b"})
        assert (error.pointer, error.detail[:14]) == (f"/headers/{twin}", "is given twice")


@pytest.mark.parametrize(
    "name", ["authorization", "x-api-key", "x-content-type", "accept", "user-agent", "cookie", "hosts"]
)
def test_free_headers(name: str) -> None:
    assert not reserved_header(name)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"url": "ftp://a"}, "/url"),
        ({"timeout_seconds": 0.0}, "/timeout_seconds"),
        ({"timeout_seconds": 43_200.5}, "/timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "/timeout_seconds"),
        ({"headers": {"host": "x"}}, "/headers/host"),
        ({"headers": {"": "x"}}, "/headers/"),
        ({"headers": {"x": " padded "}}, "/headers/x"),
        ({"headers": {"x": "é"}}, "/headers/x"),
        ({"headers": {"x": "1", "X": "2"}}, "/headers/X"),
        ({"headers": {"x": "y" * 4097}}, "/headers/x"),
        ({"headers": {f"x-{n}": "1" for n in range(51)}}, "/headers"),
        ({"headers": {f"x-{n}": "1" * 4000 for n in range(5)}}, "/headers"),
        ({"max_concurrency": 0}, "/max_concurrency"),
        ({"fatal_statuses": (400, 99)}, "/fatal_statuses/1"),
        ({"fatal_statuses": tuple(range(400, 501))}, "/fatal_statuses"),
        ({"description": "x" * 1001}, "/description"),
        ({"description": "a\x00"}, "/description"),
    ],
)
def test_a_handler_that_breaks_a_rule(change: dict[str, Any], where: str) -> None:
    assert [error.pointer for error in replace(HANDLER, **change).check()] == [where]


def test_handlers_that_break_none() -> None:
    assert HANDLER.check() == []
    full = HandlerDefinition("http://a/", 0.1, {"x-a": "", "authorization": "Bearer a b"}, 1, (400, 404), "")
    assert full.check() == []
    assert read(msgspec.to_builtins(full), HandlerBody).definition == full
    assert read({"url": "http://a/"}, HandlerBody).definition == HandlerDefinition("http://a/")


def test_secrets() -> None:
    assert is_secret("whsec_" + "A" * 32)
    assert is_secret("whsec_" + "A" * 43 + "=")
    for text in (
        "",
        "whsec_",
        "whsec_" + "A" * 31,
        "A" * 32,
        "whsec_" + "A" * 33,
        "whsec_" + "A" * 100,
        "whsec_" + "é" * 32,
    ):
        assert not is_secret(text)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"handler": "No!"}, "/handler"),
        ({"max_concurrency": 0}, "/max_concurrency"),
        ({"max_concurrency": 100_001}, "/max_concurrency"),
        ({"max_depth": 0}, "/max_depth"),
        ({"timeout_seconds": 0.05}, "/timeout_seconds"),
        ({"idempotency_seconds": -1.0}, "/idempotency_seconds"),
        ({"idempotency_seconds": 7_776_001.0}, "/idempotency_seconds"),
        ({"retention": Retention(dead_days=91)}, "/retention/dead_days"),
        ({"retention": Retention(succeeded_days=-1)}, "/retention/succeeded_days"),
        ({"retry": RetryPolicy(max_attempts=1001)}, "/retry/max_attempts"),
        ({"description": "\x00"}, "/description"),
    ],
)
def test_a_queue_that_breaks_a_rule(change: dict[str, Any], where: str) -> None:
    assert [error.pointer for error in QueueDefinition(**change).check()] == [where]


@pytest.mark.parametrize(
    ("partial", "where"),
    [
        (None, "/retry"),
        ([1], "/retry"),
        ({"x": 1}, "/retry/x"),
        ({"max_attempts": 0}, "/retry/max_attempts"),
        ({"max_attempts": 1.0}, "/retry/max_attempts"),
        ({"max_attempts": None}, "/retry/max_attempts"),
        ({"retry_after_max_seconds": -1}, "/retry/retry_after_max_seconds"),
        ({"retry_after_max_seconds": float("inf")}, "/retry/retry_after_max_seconds"),
        ({"retry_after_max_seconds": float("nan")}, "/retry/retry_after_max_seconds"),
        ({"retry_after_max_seconds": "5"}, "/retry/retry_after_max_seconds"),
        ({"backoff": 5}, "/retry/backoff"),
        ({"backoff": {"kind": 5}}, "/retry/backoff/kind"),
        ({"backoff": {"kind": ["fixed"]}}, "/retry/backoff/kind"),
        ({"backoff": {"kind": "fixed"}}, "/retry/backoff/seconds"),
        ({"backoff": {"kind": "fixed", "seconds": [1]}}, "/retry/backoff/seconds"),
        ({"backoff": {"kind": "fixed", "seconds": 1, "factor": 2}}, "/retry/backoff/factor"),
        ({"backoff": {"kind": "list", "seconds": []}}, "/retry/backoff/seconds"),
        ({"backoff": {"kind": "list", "seconds": 5}}, "/retry/backoff/seconds"),
        ({"backoff": {"kind": "list", "seconds": [1, -1]}}, "/retry/backoff/seconds/1"),
        ({"backoff": {"kind": "list", "seconds": [1] * 101}}, "/retry/backoff/seconds"),
        ({"backoff": {"kind": "exponential", "seconds": 5}}, "/retry/backoff/seconds"),
        ({"backoff": {"min_seconds": 5, "max_seconds": 4}}, "/retry/backoff/min_seconds"),
        ({"backoff": {"factor": 0.5}}, "/retry/backoff/factor"),
        ({"backoff": {"factor": True}}, "/retry/backoff/factor"),
        ({"backoff": {"jitter": "some"}}, "/retry/backoff/jitter"),
        ({"backoff": {"jitter": None}}, "/retry/backoff/jitter"),
    ],
)
def test_a_retry_that_breaks_a_rule(partial: Any, where: str) -> None:
    assert [error.pointer for error in check_retry(partial)] == [where]


@pytest.mark.parametrize(
    ("partial", "expected"),
    [
        (None, DEFAULT_RETRY),
        ({}, DEFAULT_RETRY),
        ({"max_attempts": 3}, RetryPolicy(max_attempts=3)),
        ({"retry_after_max_seconds": 5}, RetryPolicy(retry_after_max_seconds=5.0)),
        ({"backoff": {"min_seconds": 5}}, RetryPolicy(backoff=Backoff(min_seconds=5.0))),
        ({"backoff": {"kind": "exponential"}}, DEFAULT_RETRY),
        ({"backoff": {"seconds": 5}}, RetryPolicy(backoff=Backoff("fixed", seconds=5.0))),
        ({"backoff": {"kind": "list", "seconds": [1, 2]}}, RetryPolicy(backoff=Backoff("list", seconds=(1.0, 2.0)))),
    ],
)
def test_a_partial_retry_is_merged_over_the_queues(partial: dict[str, Any] | None, expected: RetryPolicy) -> None:
    assert partial is None or check_retry(partial) == []
    assert effective_retry(DEFAULT_RETRY, partial) == expected


def test_a_backoff_of_another_kind_replaces_the_whole() -> None:
    fixed = RetryPolicy(backoff=Backoff("fixed", seconds=5.0))
    assert effective_retry(fixed, {"backoff": {"factor": 3}}).backoff == Backoff(factor=3.0)
    slow = RetryPolicy(backoff=Backoff(min_seconds=60.0, jitter="none"))
    assert effective_retry(slow, {"backoff": {"factor": 3}}).backoff == Backoff(
        min_seconds=60.0, jitter="none", factor=3.0
    )


SECONDS = st.floats(0, 2_592_000)
BACKOFFS = st.one_of(
    st.builds(
        lambda low, extra, factor, jitter: Backoff("exponential", low, min(low + extra, 2_592_000), factor, jitter),
        SECONDS,
        SECONDS,
        st.floats(1, 100),
        st.sampled_from(["full", "equal", "none"]),
    ),
    st.builds(lambda seconds: Backoff("fixed", seconds=seconds), SECONDS),
    st.builds(lambda steps: Backoff("list", seconds=tuple(steps)), st.lists(SECONDS, min_size=1, max_size=5)),
)
POLICIES = st.builds(RetryPolicy, st.integers(1, 1000), SECONDS, BACKOFFS)


@given(
    st.builds(
        QueueDefinition,
        retry=POLICIES,
        max_depth=st.none() | st.integers(1, 100),
        payload_schema=st.sampled_from([None, "true", '{"const":1.0,"title":"é"}']),
        description=st.none() | st.just("é"),
    )
)
def test_a_queue_as_it_is_shown_can_be_put_again(definition: QueueDefinition) -> None:
    assert definition.check() == []
    assert read(queue_to_dict(definition), QueueBody).definition() == definition
    assert check_retry(retry_to_dict(definition.retry)) == []


def test_a_queue_is_shown_complete() -> None:
    assert queue_to_dict(QueueDefinition()) == {
        "handler": None,
        "max_concurrency": None,
        "max_depth": None,
        "timeout_seconds": None,
        "retry": {
            "max_attempts": 25,
            "retry_after_max_seconds": 3600,
            "backoff": {"kind": "exponential", "min_seconds": 1, "max_seconds": 3600, "factor": 2, "jitter": "equal"},
        },
        "idempotency_seconds": 86400,
        "payload_schema": None,
        "callbacks": {"succeeded": None, "dead": None, "cancelled": None},
        "retention": {"succeeded_days": 3, "cancelled_days": 3, "dead_days": 30},
        "description": None,
        "rate": None,
        "key": None,
        "limits": [],
        "encrypt": False,
    }


def test_an_etag_is_of_the_definition() -> None:
    assert handler_etag(HANDLER) == handler_etag(HandlerDefinition("https://example.com/hook"))
    assert handler_etag(HANDLER) != handler_etag(replace(HANDLER, headers={"a": "1"}))
    assert handler_etag(replace(HANDLER, headers={"a": "1"})) != handler_etag(replace(HANDLER, headers={"a": "2"}))
    assert queue_etag(QueueDefinition()) == queue_etag(read({}, QueueBody).definition())
    assert queue_etag(QueueDefinition(max_depth=5)) != queue_etag(QueueDefinition())
    assert queue_etag(QueueDefinition()).strip('"').isalnum()


@pytest.mark.parametrize(
    ("conditions", "current", "holds"),
    [
        (Conditions(), None, True),
        (Conditions(), '"a"', True),
        (Conditions(('"a"',)), '"a"', True),
        (Conditions(('"b"', '"a"')), '"a"', True),
        (Conditions(('"b"',)), '"a"', False),
        (Conditions(('W/"a"',)), '"a"', False),
        (Conditions(('"a"',)), None, False),
        (Conditions(("*",)), '"a"', True),
        (Conditions(("*",)), None, False),
        (Conditions(if_none_match_any=True), None, True),
        (Conditions(if_none_match_any=True), '"a"', False),
    ],
)
def test_conditions(conditions: Conditions, current: str | None, holds: bool) -> None:
    if holds:
        conditions.check(current)
    else:
        with pytest.raises(Refusal) as refusal:
            conditions.check(current)
        assert refusal.value.code == "etag_mismatch"


def test_a_refusal_has_a_known_code_and_says_its_first_error() -> None:
    with pytest.raises(ValueError, match="unknown error code"):
        Refusal("oops", "")
    assert "invalid" in CODES
    found = invalid([FieldError("/a", "is odd"), FieldError("/b", "is even")])
    assert (found.code, found.detail) == ("invalid", "/a: is odd (and 1 more)")
    assert pointer("a/b", 0, "~") == "/a~1b/0/~0"
