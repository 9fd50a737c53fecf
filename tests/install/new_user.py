"""Walks the path of a new user, from `pip install` to a delivered typed task, with the seconds of each step:

    python -m tests.install.new_user [FOLDER]

FOLDER holds the packages (`python -m build`); what they need comes from the package index, as for every user. Without FOLDER they
come from there, too. It all happens in an empty directory that is removed afterwards.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).with_name("greeting.py")
START_SECONDS = 90.0


def walk(folder: Path, say: Callable[[str, float], None], packages: Path | None = None) -> str:
    """Walk the path in this empty folder; `say` hears of each step and its seconds. Return what the task returned.

    Raises subprocess.CalledProcessError if a step fails.
    """
    with _timed("make an environment", say):
        _run(sys.executable, "-m", "venv", "environment", folder=folder)
    programs = folder / "environment" / "bin"
    source = () if packages is None else ("--find-links", str(packages))
    with _timed("pip install sluice-queue sluice-client", say):
        _run(programs / "pip", "install", "-q", *source, "sluice-queue", "sluice-client", folder=folder)
    with _serving(programs / "sluice", folder, say) as url:
        with _timed("write a task of eight lines", say):
            shutil.copy(PROGRAM, folder / "greeting.py")
        with _timed("dispatch it, run it by a worker, wait for its result", say):
            return _run(programs / "python", "greeting.py", folder=folder, SLUICE_URL=url).strip()


@contextmanager
def _serving(sluice: Path, folder: Path, say: Callable[[str, float], None]) -> Iterator[str]:
    """`sluice up` with a database of its own, on a free port, until the block ends: its address."""
    log = folder / "sluice.log"
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sluice, "up", "--port", "0"], cwd=folder, env=_environment(), stderr=lines, stdin=subprocess.DEVNULL
        )
    try:
        with _timed("sluice up: its database is made, and it is ready", say):
            url = _ready(process, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if '"ready"' in line and (entry := json.loads(line))["event"] == "ready":
                return str(entry["url"])
        time.sleep(0.05)
    raise subprocess.CalledProcessError(process.poll() or 1, "sluice up", log.read_text())


@contextmanager
def _timed(step: str, say: Callable[[str, float], None]) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(step, time.monotonic() - began)


def _run(*command: str | Path, folder: Path, **variables: str) -> str:
    ended = subprocess.run(
        command, cwd=folder, env=_environment(**variables), capture_output=True, text=True, timeout=300
    )
    if ended.returncode != 0:
        raise subprocess.CalledProcessError(ended.returncode, command, ended.stdout, ended.stderr)
    return ended.stdout


def _environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PYTHONPATH"))}
    return {**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}


def main(arguments: list[str]) -> int:
    def say(step: str, seconds: float) -> None:
        print(f"{seconds:7.1f} s  {step}", flush=True)

    packages = Path(arguments[0]).resolve() if arguments else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sluice-new-user-", ignore_cleanup_errors=True) as folder:
        try:
            result = walk(Path(folder), say, packages)
        except subprocess.CalledProcessError as error:
            print(f"{error}\n{error.stdout or ''}{error.stderr or ''}", file=sys.stderr)
            return 1
    say("in all", time.monotonic() - began)
    print(f"The task returned: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
