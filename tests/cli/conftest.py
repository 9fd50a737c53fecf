"""The command in the test's own process, and a Sluice in another for it to ask."""

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.cli.main import run
from tests.databases import create_database, drop_database
from tests.sluices import ROOT


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)


Command = Callable[..., Ended]


class _Terminal(io.TextIOWrapper):
    """Standard input at which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`sluice ARGUMENTS`; only its imports would take time in a process of its own."""

    def command(*arguments: str, stdin: bytes = b"", terminal: bool = False, **environment: str) -> Ended:
        given = io.BytesIO(stdin)
        monkeypatch.setattr("sys.argv", ["sluice", *arguments])
        monkeypatch.setattr("sys.stdin", _Terminal(given) if terminal else io.TextIOWrapper(given))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def service(server_url: str) -> Iterator[httpx2.Client]:
    """A client of a `sluice up` that this module's tests share."""
    name, loop = f"sluice_test_{uuid4().hex}", asyncio.new_event_loop()
    database = loop.run_until_complete(create_database(server_url, name))

    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", "up", "--port", "0"],
        env={**os.environ, "SLUICE_DATABASE_URL": database, "SLUICE_DRAIN_GRACE_SECONDS": "0"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    url = next(entry["url"] for entry in map(json.loads, process.stderr) if entry["event"] == "ready")
    reading = threading.Thread(target=process.stderr.read)  # or it would stand still when the pipe is full
    reading.start()
    with httpx2.Client(base_url=url, trust_env=False, verify=False) as client:
        yield client
    process.terminate()
    process.wait(30)
    reading.join()
    loop.run_until_complete(drop_database(server_url, name))
    loop.close()


@pytest.fixture
def ask(command: Command, service: httpx2.Client) -> Command:
    """`sluice ARGUMENTS`, asking that service."""

    def ask(*arguments: str, **more: Any) -> Ended:
        return command(*arguments, **{"SLUICE_URL": str(service.base_url), **more})

    return ask


@dataclass
class Scripted:
    """A server that answers with what it is given, in order, and keeps the bodies it was sent."""

    url: str
    answers: list[tuple[int, str, Any]]
    asked: list[tuple[str, str, Any]]

    def answer(self, body: Any, status: int = 200, media_type: str = "application/json") -> None:
        self.answers.append((status, media_type, body))


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            server.asked.append((self.command, self.path, json.loads(body) if body else None))
            status, media_type, answer = server.answers.pop(0)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    http.daemon_threads = True
    server = Scripted(f"http://127.0.0.1:{http.server_port}", [], [])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    http.shutdown()
    thread.join()
    http.server_close()
