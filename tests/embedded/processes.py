"""Processes that own an embedded Postgres, so that a test can kill them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import pg_bin

ROOT = Path(__file__).parents[2]


@dataclass
class Owner:
    process: subprocess.Popen[str]
    dsn: str = ""
    pid: int = 0
    error: str = ""

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def start_owner(
    directory: Path,
    *,
    wait: bool = True,
    python: str = sys.executable,
    root: Path = ROOT,
    bin_dir: Path | None = None,
    prefix: Sequence[str] = (),
) -> Owner:
    process = subprocess.Popen(
        [*prefix, python, root / "tests/embedded/owner.py", directory, bin_dir or pg_bin()],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return Owner(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the owner ended without a word"
    return Owner(process, **json.loads(line))


def alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def dead(pid: int) -> bool:
    return not alive(pid)


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found
