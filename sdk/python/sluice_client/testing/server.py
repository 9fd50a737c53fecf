"""A real `sluice up` for the tests of a session."""

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120.0


class NoProgram(Exception):
    """There is no `sluice` to start."""


@dataclass(frozen=True)
class SluiceServer:
    """A service that runs: `url` is its address. It asks for no API key."""

    url: str


@contextmanager
def sluice_up() -> Iterator[SluiceServer]:
    """Run `sluice up` on a free port of loopback, with a Postgres in a temporary folder, until the block ends.

    The program is the variable SLUICE_TEST_PROGRAM, else `sluice` beside this Python, else on the PATH. Raises NoProgram if
    there is none, and RuntimeError with what it printed if it does not start.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = os.environ.get("SLUICE_TEST_PROGRAM") or shutil.which("sluice", path=places)
    if found is None:
        raise NoProgram(
            "there is no program `sluice` beside Python or on the PATH: `pip install sluice-queue` installs it"
        )
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as folder:
        Path(folder).chmod(0o711)  # for root, Postgres runs as another user
        process = subprocess.Popen(
            [found, "up"],
            env=_environment(Path(folder)),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield SluiceServer(_address(process))
        finally:
            _stop(process)


def _environment(folder: Path) -> dict[str, str]:
    """Return the variables of this process without those that set up a Sluice elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return {
        **kept,
        "SLUICE_HOST": "127.0.0.1",
        "SLUICE_PORT": "0",
        "SLUICE_DATA_DIR": str(folder / "data"),
        "SLUICE_DRAIN_GRACE_SECONDS": "0",  # what it still holds at the end is of no interest any more
    }


def _address(process: "subprocess.Popen[bytes]") -> str:
    """Return the address that it logs once it is ready; go on reading what it prints, so that it never waits for a reader."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.decode(errors="replace"))
        lines.put(None)

    threading.Thread(target=read, daemon=True, name="sluice-test-output").start()
    printed: list[str] = []
    while True:
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            line = None
        if line is None:
            raise RuntimeError("`sluice up` did not start. It printed:\n" + "".join(printed[-50:]))
        printed.append(line)
        if (url := _ready_at(line)) is not None:
            return url


def _ready_at(line: str) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if isinstance(entry, dict) and entry.get("event") == "ready":
        return str(entry["url"])
    return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
