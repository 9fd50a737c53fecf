"""`make demo` as a process: it shows everything, and it leaves nothing, also when it is interrupted."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from app.cli import demo, demo_tasks
from app.cli.demo_processes import DemoFailed

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

STEPS = ("delivery", "retry", "dead letter", "delayed", "replay", "2 replicas", "SDK", "kill -9")


async def start(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.demo"),
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def left_by(folder: Path) -> list[str]:
    """Files, and processes that were told of the folder."""
    found = [str(path) for path in folder.iterdir()]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environ.read_bytes():
                found.append(f"{environ.parent.name} {(environ.parent / 'cmdline').read_bytes()!r}")
        except OSError:
            pass  # it has ended, or is somebody else's
    return found


@pytest.mark.timeout(180)
async def test_it_shows_the_main_job_end_to_end_and_leaves_nothing(tmp_path: Path) -> None:
    process = await start(tmp_path)
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    for step in STEPS:
        assert re.search(rf"^{step} +\S+", output, re.MULTILINE), output
    assert len(demo_tasks.lines()) == 6 and all(f"    {line}\n" in output for line in demo_tasks.lines())
    assert "kill -9" in output and "again by hand" in output
    assert left_by(tmp_path) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_stops_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    process = await start(tmp_path)
    assert process.stdout is not None
    await process.stdout.readuntil("✓ delivery".encode())
    process.send_signal(number)
    await process.stdout.read()
    assert await process.wait() == 130
    assert left_by(tmp_path) == []


def test_what_is_not_as_promised_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def perform(*_: object) -> None:
        raise DemoFailed("task 7 ended dead, not succeeded")

    monkeypatch.setattr(demo, "perform", perform)
    monkeypatch.setattr(demo, "interrupt_on_sigterm", lambda: None)
    assert demo.main() == 1
    assert "not as promised: task 7 ended dead, not succeeded" in capsys.readouterr().out
