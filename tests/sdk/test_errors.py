"""What an error says, and that it can be sent between processes."""

import pickle

import pytest

from sluice_client import errors
from sluice_client.errors import ApiError, Conflict, ConnectionFailed, LeaseLost, NotSluice, SluiceError, error_class

FIELDS = [{"pointer": "/priority", "detail": "must be at most 100"}, {"pointer": "", "detail": "names no payload"}]


def test_an_error_says_its_status_code_detail_and_pointers() -> None:
    error = ApiError(422, "invalid", "the task is invalid", FIELDS)  # type: ignore[arg-type]
    assert str(error) == "422 invalid: the task is invalid (/priority: must be at most 100; request: names no payload)"
    assert str(ApiError(409, "task_ended", "it has ended")) == "409 task_ended: it has ended"


@pytest.mark.parametrize(
    "error",
    [
        LeaseLost(409, "lease_lost", "gone", FIELDS, "r-1", 2.5, {"code": "lease_lost"}),  # type: ignore[arg-type]
        ConnectionFailed("no response from http://127.0.0.1:8080"),
        NotSluice("http://127.0.0.1:8080 responded 502 Bad Gateway, and not as Sluice does", 502, 3.0),
    ],
)
def test_errors_are_pickled_with_all_that_they_hold(error: SluiceError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (400, "malformed", "Invalid"),
        (401, "unauthenticated", "Unauthenticated"),
        (403, "host_refused", "Forbidden"),
        (404, "queue_not_found", "NotFound"),
        (409, "queue_in_use", "Conflict"),
        (409, "lease_lost", "LeaseLost"),
        (409, "task_cancelled", "LeaseLost"),
        (412, "etag_mismatch", "Conflict"),
        (413, "too_large", "Invalid"),
        (422, "idempotency_mismatch", "Invalid"),
        (429, "queue_full", "QueueFull"),
        (429, "key_full", "QueueFull"),
        (429, "rate_limited", "ApiError"),
        (500, "internal", "ApiError"),
        (503, "unavailable", "Unavailable"),
    ],
)
def test_a_problem_becomes_the_class_of_its_code_or_status(status: int, code: str, name: str) -> None:
    assert error_class(status, code) is getattr(errors, name)
    assert issubclass(LeaseLost, Conflict) and issubclass(NotSluice, ConnectionFailed)
