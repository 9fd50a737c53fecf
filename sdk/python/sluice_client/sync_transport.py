"""One request, repeated where that is safe: a response, or an exception that says what happened.

`sync_transport.py` is generated from this file: see `app/cli/sdk`.
"""

import logging
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any

import httpx2

from sluice_client.errors import ConnectionFailed, SluiceError
from sluice_client.messages import base_url, client_headers, encode, given, is_loopback, patience, refuse_failure
from sluice_client.per_process import PerProcess
from sluice_client.retrying import pause_before, repeats_after

DEFAULT_URL = "http://127.0.0.1:8080"
LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=30.0)
"""An idle connection is closed here before the service, or a proxy, closes it under a request."""

log = logging.getLogger(__name__)


class SyncTransport:
    """Sends requests to one Sluice with one API key. Raises ValueError for a URL or a key that cannot be used.

    `timeout` is in seconds: how long to wait for a response, all repeats of the request included. What a request itself
    waits for (`wait_seconds`) comes on top. A long body may take longer, as long as it does not pause for `timeout`.
    `http` replaces the network, for tests. Connections are kept open and reused.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        http: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = base_url(url or os.environ.get("SLUICE_URL") or DEFAULT_URL)
        self.timeout = timeout
        self._headers = client_headers(key or os.environ.get("SLUICE_KEY"))
        self._http = http
        self._clients = PerProcess(self._build)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> "SyncTransport":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A later request opens new ones."""
        client = self._clients.take()
        if client is not None:
            client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        wait_seconds: float = 0.0,
        timeout: float | None = None,
    ) -> httpx2.Response:
        """Send a request and return its response, a success.

        `json` is encoded; `content` is JSON already. What is None in `params` and `headers` is left out. A repeatable
        request is sent again after a connection error and after 429, 502, 503 and 504, until `timeout` (that of the
        transport, unless given) and `wait_seconds` are over.

        Raises ApiError for a refusal, ConnectionFailed if no response came, NotSluice if it came from another program, and
        ValueError or TypeError for a body, a header or a path that cannot be sent.
        """
        started = monotonic()
        deadline = started + wait_seconds + (self.timeout if timeout is None else timeout)
        body = content if json is None else encode(json)
        query, fields = given(params), given(headers)
        if body is not None:
            fields["content-type"] = "application/json"
        repeat = 0
        while True:
            try:
                return self._send(method, path, query, body, fields, deadline - monotonic())
            except SluiceError as error:
                repeat += 1
                asked = repeats_after(error) if repeatable else None
                pause = None if asked is None else pause_before(repeat, asked, deadline - monotonic(), random.random())
                if pause is None:
                    raise
                log.debug("%s %s will be repeated in %.2f s: %s", method, path, pause, error)
            time.sleep(pause)
            if "wait_seconds" in query:
                query["wait_seconds"] = max(0.0, wait_seconds - (monotonic() - started))

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str | None]
    ) -> Iterator[httpx2.Response]:
        """Open a response that is read while it comes, and that is silent for no longer than the timeout.

        Raises as `request` does, also while it is read; nothing is repeated.
        """
        client = self._clients.get()
        timeout = patience(self.timeout)
        try:
            with client.stream("GET", path, params=given(params), headers=given(headers), timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                refuse_failure(response, self.url)
                yield response
        except httpx2.TransportError as error:
            raise self._failed(error) from error

    def _send(
        self, method: str, path: str, query: dict[str, Any], body: bytes | None, headers: dict[str, Any], seconds: float
    ) -> httpx2.Response:
        client = self._clients.get()
        try:
            response = client.request(
                method, path, params=query or None, content=body, headers=headers, timeout=patience(seconds)
            )
        except (httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            raise ValueError(f"the request cannot be sent: {error}") from None
        except httpx2.RequestError as error:
            raise self._failed(error) from error
        refuse_failure(response, self.url)
        return response

    def _failed(self, error: Exception) -> ConnectionFailed:
        reason = ": ".join(part for part in (type(error).__name__, str(error)) if part)
        return ConnectionFailed(f"no response from {self.url} ({reason})")

    def _build(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url,
            headers=self._headers,
            limits=LIMITS,
            transport=self._http,
            trust_env=not is_loopback(self.url),  # through a proxy, loopback would be the proxy's
            verify=self.url.startswith("https:"),  # without TLS, loading certificates would only take time
        )
