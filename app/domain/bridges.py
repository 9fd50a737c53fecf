"""Where bridges lead: addresses of SQS queues and of Redis streams, for handlers and sources alike."""

import re
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from app.domain.errors import FieldError
from app.domain.texts import check_text
from app.domain.urls import scheme_problem, text_problem_of_url, url_problem

MAX_STREAM = 512
"""Characters of a stream's name."""
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class AwsCredentials(Struct, frozen=True, forbid_unknown_fields=True):
    """An access key of AWS. Write-only."""

    access_key_id: Annotated[str, Meta(min_length=1, max_length=128)]
    secret_access_key: Annotated[str, Meta(min_length=1, max_length=256)]
    session_token: Annotated[
        Annotated[str, Meta(min_length=1, max_length=8192)] | None, Meta(description="Of temporary credentials.")
    ] = None

    def __repr__(self) -> str:
        return f"AwsCredentials({self.access_key_id!r})"


class SqsAddress(Struct, frozen=True, kw_only=True):
    """The queue that a handler of kind sqs sends to. Its repr shows no secret."""

    queue_url: str
    region: str
    endpoint_url: str | None = None
    credentials: AwsCredentials | None = None
    """None: those that the replica finds in the usual chain."""
    group_id_from: Literal["key"] | None = None

    @property
    def fifo(self) -> bool:
        return self.queue_url.endswith(".fifo")


class StreamAddress(Struct, frozen=True, kw_only=True):
    """The stream that a handler of kind redis_stream adds to. Its repr shows no secret."""

    url: str
    """It may have a password."""
    stream: str
    maxlen: int | None = None

    def __repr__(self) -> str:
        return f"StreamAddress({self.stream!r})"


Address = SqsAddress | StreamAddress


def sqs_errors(
    queue_url: str, region: str, endpoint_url: str | None, credentials: AwsCredentials | None
) -> list[FieldError]:
    """Return what is wrong with the address of an SQS queue, at the names of its fields."""
    errors = [FieldError("/queue_url", problem)] if (problem := _queue_problem(queue_url)) else []
    if _REGION.fullmatch(region) is None:
        errors.append(FieldError("/region", "must be a region, such as eu-west-1"))
    if endpoint_url is not None and (problem := _endpoint_problem(endpoint_url)):
        errors.append(FieldError("/endpoint_url", problem))
    if credentials is not None:
        errors += _credentials_errors(credentials)
    return errors


def _queue_problem(url: str) -> str | None:
    problem = url_problem(url)
    if problem is None and not urlsplit(url).path.strip("/"):
        return "has no path: it is the QueueUrl, such as https://sqs.eu-west-1.amazonaws.com/123456789012/orders"
    return problem or ("must not contain a query" if "?" in url else None)


def _endpoint_problem(url: str) -> str | None:
    problem = url_problem(url)
    if problem is None and (urlsplit(url).path not in ("", "/") or "?" in url):
        return "must not contain a path or a query: it is the server, such as https://sqs.eu-west-1.amazonaws.com"
    return problem


def _credentials_errors(credentials: AwsCredentials) -> list[FieldError]:
    """Return what could not be sent in a header. The texts themselves are never named."""
    return [
        FieldError(
            f"/credentials/{name}", "must be printable ASCII without spaces, and an id without slashes and commas"
        )
        for name in ("access_key_id", "secret_access_key", "session_token")
        if (text := getattr(credentials, name)) is not None
        and (_VISIBLE.fullmatch(text) is None or (name == "access_key_id" and ("/" in text or "," in text)))
    ]


def redis_errors(url: str | None, stream: str) -> list[FieldError]:
    """Return what is wrong with the address of a Redis stream, at the names of its fields. None: the URL is known to be good."""
    errors = [FieldError("/url", problem)] if url is not None and (problem := redis_url_problem(url)) else []
    return errors + check_text(stream, "/stream", MAX_STREAM)


def redis_url_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a Redis server; None if nothing is. It never names the URL, which has a password."""
    problem = text_problem_of_url(url) or scheme_problem(url, ("redis", "rediss"))
    if problem is not None:
        return problem
    parts = urlsplit(url)
    if parts.query or "#" in url or "?" in url:
        return "must not contain a query or a fragment"
    database = unquote(parts.path).strip("/")
    if database and not (database.isascii() and database.isdigit() and len(database) <= 5):
        return "must end in the number of a database, or have no path"
    return None
