"""Which Pythons are on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

UV = Path(sys.executable).with_name("uv")


def interpreter(version: str) -> Path:
    """Return the program of this Python, as "3.12". Skips the test if there is none."""
    found = _find(version)
    if found is None:
        pytest.skip(f"there is no Python {version} on this machine")
    return found


@cache
def _find(version: str) -> Path | None:
    return next((program for program in _candidates(version) if _is(program, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    """From PATH, from pyenv (whose programs on PATH are stubs that fail for versions that are not chosen), and as uv knows it."""
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    command = [str(UV), "python", "find", "--no-project", "--no-python-downloads", version]
    known = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if known.returncode == 0:
        yield Path(known.stdout.strip())


def _is(program: Path, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    ended = subprocess.run([program, "-c", code], capture_output=True, text=True, timeout=60)
    return ended.returncode == 0 and ended.stdout.strip() == version
