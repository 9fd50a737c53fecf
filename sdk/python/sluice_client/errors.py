"""What a call raises. Catch `SluiceError` for all of it; every error can be pickled, and none contains the API key."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice_client.models import FieldProblem


class SluiceError(Exception):
    """Base of everything that this package raises on purpose."""


class ConnectionFailed(SluiceError):
    """No response came: the service cannot be reached, the connection broke, or it took too long.

    Whether the service acted on the request is unknown, unless the connection could not be opened at all.
    """


class NotSluice(ConnectionFailed):
    """Something responded that does not speak as Sluice does, such as a proxy in front of it, or another program."""

    def __init__(self, message: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(message, status, retry_after)
        self.message = message
        self.status = status
        self.retry_after = retry_after
        """Seconds that the response asked to wait."""

    def __str__(self) -> str:
        return self.message


class ApiError(SluiceError):
    """Sluice refused the request, as an RFC 9457 problem. `code` is stable; the reference of error codes lists them all."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: "Sequence[FieldProblem]" = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, code, detail, errors, request_id, retry_after, problem)
        self.status = status
        """HTTP status."""
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        """What is wrong with which field: `pointer` is an RFC 6901 pointer into the body, or a parameter's name."""
        self.request_id = request_id
        """The id of the request in the service's log."""
        self.retry_after = retry_after
        """Seconds that the service asked to wait before the next request; None if it did not."""
        self.problem = problem
        """The whole problem document, as it came."""

    def __str__(self) -> str:
        fields = "; ".join(f"{error['pointer'] or 'request'}: {error['detail']}" for error in self.errors)
        text = f"{self.status} {self.code}: {self.detail}"
        return f"{text} ({fields})" if fields else text


class Invalid(ApiError):
    """400, 413, 415 or 422: the request is wrong, and will be when it is repeated. `errors` says where."""


class Unauthenticated(ApiError):
    """401: no API key, or one that is not valid."""


class Forbidden(ApiError):
    """403: the API key does not permit this."""


class NotFound(ApiError):
    """404: what the path names does not exist, or its retention is over."""


class Conflict(ApiError):
    """409 or 412: the present state does not allow this, or what `if_match` names has changed."""


class LeaseLost(Conflict):
    """409: the task is not this worker's any more (`lease_lost`), or has been cancelled (`task_cancelled`)."""


class QueueFull(ApiError):
    """429: the queue holds its `max_depth` (`queue_full`), or the key its own (`key_full`)."""


class Unavailable(ApiError):
    """503: temporarily unavailable."""


BY_CODE: dict[str, type[ApiError]] = {
    "lease_lost": LeaseLost,
    "task_cancelled": LeaseLost,
    "queue_full": QueueFull,
    "key_full": QueueFull,
}
BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    503: Unavailable,
}


def error_class(status: int, code: str) -> type[ApiError]:
    """Return the class of a problem: by its code, else by its status."""
    return BY_CODE.get(code) or BY_STATUS.get(status, ApiError)
