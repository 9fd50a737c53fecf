"""The processes of the demo: started with clean settings, listened to, and always stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from app.cli.demo_handler import SECRET_VARIABLE

LEASE_SECONDS = 5
START_SECONDS = 60.0
"""A first start creates a database, which takes a while on a busy machine."""
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05

Line = dict[str, Any]
T = TypeVar("T")


class DemoFailed(Exception):
    """Something was not as promised; the message says what."""


class Child:
    """A process whose lines of JSON are kept. It has its own session, so that Ctrl-C only reaches the demo itself."""

    def __init__(self, name: str, module: str, *arguments: str, settings: Mapping[str, str]) -> None:
        self.name = name
        self._lines: list[Line] = []
        self._said: list[str] = []
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLUICE_", "OTEL_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict):
                self._lines.append(line)
            self._said.append(text.rstrip())

    @property
    def pid(self) -> int:
        return self._process.pid

    def find(self, wanted: Callable[[Line], bool]) -> Line | None:
        return next((line for line in list(self._lines) if wanted(line)), None)

    def count(self, wanted: Callable[[Line], bool]) -> int:
        return sum(wanted(line) for line in list(self._lines))

    def wait_for(self, wanted: Callable[[Line], bool], what: str) -> Line:
        """The first matching line. Raises DemoFailed, with its last lines, if the process ends first."""

        def look() -> Line | None:
            ended = self._process.poll() is not None
            if ended:
                self._reader.join(1)
            line = self.find(wanted)
            if line is None and ended:
                raise DemoFailed(f"{self.name} ended before {what}:\n{self.last_words()}")
            return line

        return until(f"{self.name}: {what}", look, START_SECONDS)

    def last_words(self) -> str:
        return "\n".join(self._said[-8:])

    def kill(self) -> None:
        """kill -9, as in a crash."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.kill()  # a second Ctrl-C must not leave a process behind


def until(what: str, ask: Callable[[], T | None], seconds: float) -> T:
    """Ask until there is an answer. Raises DemoFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def start_replica(name: str, folder: Path, database_url: str | None = None) -> Child:
    """A `sluice up` on a free port, with its own database in `folder` or on the given one."""
    settings = {
        "SLUICE_PORT": "0",
        "SLUICE_LEASE_SECONDS": str(LEASE_SECONDS),
        "SLUICE_DRAIN_GRACE_SECONDS": "1",
        "SLUICE_DATA_DIR": str(folder / "data"),
    }
    if database_url is not None:
        settings["SLUICE_DATABASE_URL"] = database_url
    return Child(name, "app.cli.main", "up", settings=settings)


def start_handler(secret: str) -> Child:
    return Child("the handler", "app.cli.demo_handler", settings={SECRET_VARIABLE: secret})


def start_application(url: str) -> Child:
    return Child("the application", "app.cli.demo_tasks", settings={"SLUICE_URL": url})


def interrupt_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C: everything that was started is stopped on the way out."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
