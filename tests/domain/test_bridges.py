"""Addresses of SQS queues and Redis streams: what is refused, and what is never said of them."""

import pytest

from app.domain.bridges import AwsCredentials, redis_errors, sqs_errors

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"
GIVEN = AwsCredentials("AKIDEXAMPLE", "a secret without spaces".replace(" ", "-"))


def pointers(errors: list) -> list[str]:  # type: ignore[type-arg]
    return [error.pointer for error in errors]


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:5000", "https://sqs.eu-west-1.amazonaws.com/"])
def test_a_queue_has_its_url_and_its_region(endpoint: str | None) -> None:
    assert sqs_errors(QUEUE, "eu-west-1", endpoint, GIVEN) == []


def test_every_fault_of_an_sqs_address_is_named_at_its_field() -> None:
    bad = AwsCredentials("AK/ID", "a b", "line\nbreak")
    errors = sqs_errors("https://sqs.eu-west-1.amazonaws.com/", "EU (Ireland)", "https://a.example/queue", bad)
    assert pointers(errors) == [
        "/queue_url",
        "/region",
        "/endpoint_url",
        "/credentials/access_key_id",
        "/credentials/secret_access_key",
        "/credentials/session_token",
    ]
    assert "a b" not in str(errors)


@pytest.mark.parametrize(
    "url",
    ["sqs://a.example/q", "https://a.example/q?x=1", "https://u:p@a.example/q", "https://a.example/q#f", "https:///q"],
)
def test_a_queue_url_is_a_plain_url(url: str) -> None:
    assert pointers(sqs_errors(url, "eu-west-1", None, None)) == ["/queue_url"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://a.example",
        "rediss://user:p%40ss@a.example:6380/2",
        "redis://:secret@[::1]:6379/0",
        "redis://a.example/",
    ],
)
def test_a_redis_url_may_have_a_user_and_a_database(url: str) -> None:
    assert redis_errors(url, "jobs") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "unix:///run/redis.sock",
        "redis://",
        "redis://:hidden@a.example:0",
        "redis://:hidden@a.example:99999",
        "redis://:hidden@a.example/jobs",
        "redis://:hidden@a.example/0?ssl_cert_reqs=none",
        "redis://:hid den@a.example/0",
    ],
)
def test_a_redis_url_leads_to_one_database_and_is_never_repeated(url: str) -> None:
    errors = redis_errors(url, "jobs")
    assert pointers(errors) == ["/url"] and "hid" not in str(errors)


def test_a_stream_has_a_name_that_can_be_stored() -> None:
    assert pointers(redis_errors(None, "")) == pointers(redis_errors(None, "a\x00b")) == ["/stream"]


def test_credentials_do_not_show_their_secrets() -> None:
    assert repr(AwsCredentials("AKIDEXAMPLE", "secret-key", "token")) == "AwsCredentials('AKIDEXAMPLE')"
