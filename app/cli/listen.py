"""`sluice listen`: a webhook handler that verifies each delivery, prints it, and answers."""

import asyncio
import contextlib
import hmac
import json
import re
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import datetime
from typing import Any

import uvicorn
from rich.console import Console
from rich.text import Text

from app.delivery.webhook.signing import sign
from app.domain.grouped import GROUP_TYPE

SIGNATURE_MAX_AGE_SECONDS = 300
TASKS_REMEMBERED = 100_000
BODY_MAX_BYTES = 8 * 1024 * 1024
BODY_SHOWN = 2_000

Message = MutableMapping[str, Any]


class Listener:
    """Answers 401 if the signature is wrong, 500 to the first `fail` deliveries of each task, and otherwise 200. To a group it
    answers 200 with the failures of those tasks."""

    def __init__(self, secrets: tuple[str, ...] = (), fail: int = 0, delay_seconds: float = 0.0) -> None:
        self._secrets = secrets
        self._fail = fail
        self._delay_seconds = delay_seconds
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._console = Console(highlight=False, soft_wrap=True)

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        announced = int(headers.get("content-length", "0"))  # the server only lets digits through
        body = None if announced > BODY_MAX_BYTES else await _body(receive)
        document = None
        if body is None:
            status, word = 413, "larger than 8 MiB"
        else:
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            status, word, document = self._answer(headers, body, time.time())
            self._show(scope["path"], headers, body, status, word)
        text = f"{document or word}\n".encode()
        kind = b"application/json" if document else b"text/plain"
        lengths = [(b"content-type", kind), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": lengths})
        await send({"type": "http.response.body", "body": text})

    def _answer(self, headers: MutableMapping[str, str], body: bytes, now: float) -> tuple[int, str, str | None]:
        """The status, what is printed, and the JSON that is sent instead of that."""
        fault = self._fault(headers, body, now)
        if fault is not None:
            return 401, fault, None
        if headers.get("content-type") == GROUP_TYPE:
            return self._answer_group(body)
        failed = self._failed(headers.get("webhook-id", ""))
        return (200, "ok", None) if failed is None else (500, failed, None)

    def _answer_group(self, body: bytes) -> tuple[int, str, str | None]:
        try:
            tasks = [str(task["id"]) for task in json.loads(body)["tasks"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return 400, "not a group", None
        failures = [{"id": task, "error": failed} for task in tasks if (failed := self._failed(task)) is not None]
        word = f"{len(failures)} of {len(tasks)} failed as asked" if failures else "ok"
        return 200, word, json.dumps({"failures": failures})

    def _failed(self, task: str) -> str | None:
        """Count a delivery of a task; say so if it fails."""
        number = self._seen.pop(task, 0) + 1
        self._seen[task] = number
        if len(self._seen) > TASKS_REMEMBERED:
            self._seen.popitem(last=False)
        return f"failed as asked ({number} of {self._fail})" if number <= self._fail else None

    def _fault(self, headers: MutableMapping[str, str], body: bytes, now: float) -> str | None:
        """What is wrong with the signature, if there is a secret to verify it with. During a rotation, either secret will do."""
        if not self._secrets:
            return None
        given = headers.get("webhook-signature", "").split()
        timestamp = headers.get("webhook-timestamp", "")
        if not given or not re.fullmatch("[0-9]{1,12}", timestamp):
            return "not signed"
        if abs(now - int(timestamp)) > SIGNATURE_MAX_AGE_SECONDS:
            return "signed too long ago, or the clocks differ"
        expected = sign(self._secrets, headers.get("webhook-id", ""), int(timestamp), body).split()
        if not any(hmac.compare_digest(one.encode(), other.encode()) for one in given for other in expected):
            return "the signature does not match --secret"
        return None

    def _show(self, path: str, headers: MutableMapping[str, str], body: bytes, status: int, word: str) -> None:
        line = Text(f"{datetime.now().astimezone():%H:%M:%S}  ")
        line.append(f"{status} {word}", style="green" if status == 200 else "red")
        facts = (
            ("task", headers.get("webhook-id")),
            ("queue", headers.get("sluice-queue")),
            ("type", headers.get("sluice-type")),
            ("attempt", headers.get("sluice-attempt")),
            ("of", headers.get("sluice-max-attempts")),
            ("path", path if path != "/" else None),
        )
        line.append("".join(f"  {name} {_printable(value)}" for name, value in facts if value))
        if status == 200:
            line.append(
                "  signature verified" if self._secrets else "  signature not checked (no --secret)", style="dim"
            )
        self._console.print(line)
        self._console.print(Text("          " + _readable(body)))


async def serve(listener: Listener, host: str, port: int) -> int:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        print(f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another port.", file=sys.stderr)
        return 1
    settings = uvicorn.Config(listener, lifespan="off", access_log=False, log_config=None, server_header=False)
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
    await _Server(settings, url).serve(sockets=[bound])
    return 0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _greet(self._url)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Exit with 0 on SIGINT and SIGTERM: being stopped is how this command ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _greet(url: str) -> None:
    lines = (
        f"Listening on {url} To send it a task:",
        f'  curl -X PUT --json \'{{"url": "{url}"}}\' http://127.0.0.1:8080/handlers/hello',
        '  curl -X PUT --json \'{"handler": "hello"}\' http://127.0.0.1:8080/queues/hello',
        '  curl --json \'{"payload": {"hello": "world"}}\' http://127.0.0.1:8080/queues/hello/tasks',
        "",
    )
    print("\n".join(lines), flush=True)


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_MAX_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _readable(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode(errors="replace")
    text = _printable(text)
    return text if len(text) <= BODY_SHOWN else f"{text[:BODY_SHOWN]}… ({len(body)} bytes)"


def _printable(text: str) -> str:
    """Text from a sender must not control the terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
