"""A mount for Flask and whatever else speaks WSGI (PEP 3333)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from sluice_client.serving.background import BACKGROUND
from sluice_client.serving.push import Push
from sluice_client.serving.settlements import Reply, answer


class WsgiApp:
    """Runs the tasks that Sluice delivers to any path below it. Async functions run in an event loop in the background.

    WSGI does not say when a caller has hung up, so a function that goes on for too long is stopped by its deadline.
    """

    def __init__(self, push: Push) -> None:
        self._push = push

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reply = self._reply(environ)
        status = f"{reply.status} {HTTPStatus(reply.status).phrase}"
        start_response(status, [("content-length", str(len(reply.body))), *reply.headers.items()])
        return [reply.body]

    def _reply(self, environ: dict[str, Any]) -> Reply:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        refused = self._push.refuse(environ["REQUEST_METHOD"], headers)
        if refused is not None:
            return refused
        if not headers.get("content-length"):
            return answer(411, {"error": "a content-length is needed"})
        body = environ["wsgi.input"].read(int(headers["content-length"]))
        return BACKGROUND.call(self._push.answer(headers, body))
