"""What comes back: documents, with what their responses say beside them, and events."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from sluice_client.errors import NotSluice


@dataclass(frozen=True)
class Reply:
    """The head of a response."""

    status: int
    etag: str | None = None
    """Of a definition: what `if_match` takes."""
    location: str | None = None
    replayed: bool = False
    """The idempotency key was known: the task is the one of the first request, whatever became of it since."""
    unique_held: bool = False
    """An unfinished task has the unique key, and is the one that was returned."""
    request_id: str | None = None
    """The id of the request in the service's log."""


@dataclass(frozen=True)
class Event:
    name: str
    """`overview`, `alarm` or `task`."""
    data: Any
    id: str


class Document(dict[str, Any]):
    """The JSON object of a response: a dict, which also remembers the head that it came with."""

    status: int
    headers: httpx2.Headers


def reply(view: Mapping[str, Any]) -> Reply:
    """Return the head of the response that a method's result came with. Raises TypeError for any other dict."""
    if not isinstance(view, Document):
        raise TypeError("only what a method of the API returned has a reply")
    headers = view.headers
    return Reply(
        view.status,
        headers.get("etag"),
        headers.get("location"),
        headers.get("idempotent-replayed") == "true",
        headers.get("unique-held") == "true",
        headers.get("x-request-id"),
    )


def document(response: httpx2.Response) -> Any:
    """Return the body of a response. Raises NotSluice if it is not JSON."""
    if not response.content:
        return None
    try:
        body = json.loads(response.content)
    except ValueError:
        text = f"{response.url} responded {response.status_code} with what is not JSON, and not as Sluice does"
        raise NotSluice(text, response.status_code) from None
    if not isinstance(body, dict):
        return body
    view = Document(body)
    view.status, view.headers = response.status_code, response.headers
    return view
