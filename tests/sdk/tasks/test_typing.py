"""mypy in strict mode and pyright agree on the types of dispatch, call, options, wait and direct calls."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

ROOT = Path(__file__).parents[3]
TYPED = Path(__file__).with_name("typed.py")
PYRIGHT = ROOT / "tests" / "sdk" / "pyright" / "node_modules" / ".bin" / "pyright"


def expected() -> set[int]:
    """The lines that must be refused."""
    return {n for n, line in enumerate(TYPED.read_text().splitlines(), 1) if line.endswith("# refused")}


def test_mypy_accepts_what_is_right_and_refuses_the_rest() -> None:
    mypy = [sys.executable, "-m", "mypy", "--no-pretty", "--hide-error-context", str(TYPED)]
    ended = subprocess.run(mypy, capture_output=True, text=True, cwd=ROOT, timeout=300)
    errors = re.findall(r"typed\.py:(\d+): error: .*", ended.stdout)
    assert {int(line) for line in errors} == expected(), ended.stdout


def test_pyright_accepts_what_is_right_and_refuses_the_rest() -> None:
    if not PYRIGHT.exists():
        pytest.fail("pyright is not there: npm ci --prefix tests/sdk/pyright")
    pyright = [str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, str(TYPED)]
    ended = subprocess.run(pyright, capture_output=True, text=True, cwd=ROOT, timeout=300)
    found = [one for one in json.loads(ended.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    assert {one["range"]["start"]["line"] + 1 for one in found} == expected(), ended.stdout
