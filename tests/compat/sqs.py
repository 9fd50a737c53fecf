"""The SQS wire as its clients see it: AWS JSON 1.0 over a socket."""

import json
from typing import Any

import httpx2

from app.compat.sqs.errors import KINDS


class Sqs:
    """A client without a signature, which is enough while authentication is off."""

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self.client = client
        self.url = url

    async def send(self, operation: str, body: bytes, **headers: str) -> httpx2.Response:
        """Send a body as it stands."""
        given = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"AmazonSQS.{operation}"}
        return await self.client.post(self.url, content=body, headers={**given, **headers})

    async def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """Return the output of a call that succeeds."""
        reply = await self.send(operation, json.dumps(members).encode())
        assert reply.status_code == 200, f"{reply.status_code} {reply.text}"
        assert reply.headers["content-type"] == "application/x-amz-json-1.0"
        found: dict[str, Any] = reply.json() if reply.content else {}
        return found

    async def refused(self, operation: str, error: str, **members: Any) -> str:
        """Check that a call is refused with this error, a key of KINDS; return its message."""
        return refusal(await self.send(operation, json.dumps(members).encode()), error)


def refusal(reply: httpx2.Response, error: str) -> str:
    """Check that a reply is this error, in the shape of all errors; return its message."""
    kind = KINDS[error]
    blame = "Sender" if kind.status < 500 else "Receiver"
    found = reply.json()
    assert (reply.status_code, found["__type"]) == (kind.status, kind.type), f"{reply.status_code} {reply.text}"
    assert reply.headers["x-amzn-query-error"] == f"{kind.code};{blame}"
    assert reply.headers["content-type"] == "application/x-amz-json-1.0"
    assert set(found) == {"__type", "message"} and found["message"]
    message: str = found["message"]
    return message
