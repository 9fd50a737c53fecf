"""The ASGI shell around an application, which every request passes through.

It checks the host if authentication is off, answers what the application could not, and routes the hot path directly to its
endpoint.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.domain.errors import Refusal
from app.domain.names import is_name
from app.edge import errors
from app.edge.body import closing_unless_read, hold_of
from app.edge.config import OTHER, RequestMeter
from app.edge.exchange import Exchange
from app.edge.headers import read_headers
from app.edge.hosts import require_loopback
from app.telemetry.events import REQUEST_FAILED, emit
from app.telemetry.logs import get_logger, name_request

log = get_logger(__name__)

METHODS = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})

Serve = Callable[[str, dict[bytes, bytes], Scope, Receive, Send, Exchange | None], Awaitable[None]]


class Shortcut:
    """A POST route that bypasses the router, which would cost as much as everything else.

    `path` is as the router has it, with one `{name}` inside; `serve` takes that name, and the headers as read_headers made
    them.
    """

    def __init__(self, path: str, serve: Serve) -> None:
        self.path = path
        self.serve = serve
        self._before, self._after = path.split("{name}")

    def name_in(self, path: str) -> str | None:
        """Return the name in this path; None if the path is another route's, or the name is invalid."""
        if not (path.startswith(self._before) and path.endswith(self._after)):
            return None
        name = path[len(self._before) : -len(self._after)]
        return name if is_name(name) else None


class Edge:
    """The ASGI application for a server. `application` is the FastAPI app inside, for instrumentation.

    `paths`: the paths of routes that are plain ASGI, by endpoint; others say theirs in the scope. `request_meter` counts requests
    that got a response.
    """

    def __init__(
        self,
        application: FastAPI,
        *,
        guarded: bool,
        shortcut: Shortcut | None,
        paths: Mapping[Any, str],
        request_meter: RequestMeter | None,
    ) -> None:
        self.application = application
        self._guarded = guarded
        self._shortcut = shortcut
        self._paths = paths
        self._request_meter = request_meter
        self._meters: dict[tuple[str, int, int], Callable[[float], None]] = {}
        """By method, id of the route or else of the endpoint, and status; both live as long as the application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"the edge serves HTTP, not {scope['type']}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        status = 0
        exchange: Exchange | None = scope.pop("exchange", None)
        if scope["method"] == "HEAD":
            # the server omits the body of the answer; `head` is for one that has no end
            scope = {**scope, "method": "GET", "head": True}

        async def noting_send(message: Message) -> None:
            nonlocal status
            if not status:
                status = message["status"]
            await send(message)

        hold = hold_of(scope)
        if hold is not None and hold.expects:
            receive, send = closing_unless_read(receive, send)
        try:
            await self._dispatch(scope, receive, noting_send, exchange)
        except Refusal as refusal:
            await errors.problem(refusal)(scope, receive, noting_send)
        except ClientDisconnect:
            return
        except Exception:
            self._log_failure(scope)
            if not status and (exchange is None or not exchange.status):
                await errors.problem(errors.INTERNAL)(scope, receive, noting_send)
        finally:
            if exchange is not None and exchange.status:
                status = exchange.status
            if hold is not None:
                hold.release()
            if status and self._request_meter is not None:
                served = scope["method"], id(scope.get("route") or scope.get("endpoint")), status
                count = self._meters.get(served)
                if count is None:
                    method = served[0] if served[0] in METHODS else OTHER
                    count = self._meters[served] = self._request_meter(method, self._route(scope), status)
                count(perf_counter() - began)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None) -> None:
        headers = read_headers(scope["headers"])
        if b"host" not in headers and scope["http_version"] == "1.1":
            raise Refusal("malformed", "the request has no Host header")
        if self._guarded:
            require_loopback(headers)
        if scope["method"] == "POST" and self._shortcut is not None:
            name = self._shortcut.name_in(scope["path"])
            if name is not None:
                scope["route"] = self._shortcut
                await self._shortcut.serve(name, headers, scope, receive, send, exchange)
                return
        name_request(scope.get("request_id", b""))
        await self.application(scope, receive, send)

    def _log_failure(self, scope: Scope) -> None:
        name_request(scope.get("request_id", b""))  # the shortcut has not paid for it
        emit(log, REQUEST_FAILED, method=scope["method"], route=self._route(scope), code="internal", exc_info=True)

    def _route(self, scope: Scope) -> str:
        """Return the path of the route that serves the request, with its parameters' names."""
        route = scope.get("route")
        if route is not None:
            path: str = route.path
            return path
        return self._paths.get(scope.get("endpoint"), OTHER)
