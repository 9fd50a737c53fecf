"""What the long forms of the tests of SQS bridges come to. `python -m tests.crash.counts` runs them and writes a reference page.

A test notes its figures (`note`). They are kept only while this program runs it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "sqs-counts.md"
TESTS = ("tests/crash/test_sqs_source.py", "tests/crash/test_sqs_target.py")
FILE = "SLUICE_TEST_COUNTS"
"""The variable that names the file of figures."""
COLUMNS = ("messages", "tasks", "kills", "receives", "seconds")
HEAD = """# SQS bridges, counted

What the long forms of the tests came to on {day}, at {commit}. `.venv/bin/python -m tests.crash.counts` runs
them and writes this page. moto's server stands in for SQS, and everything is on one machine with two cores. A test
passes only if, in front, there is one task per message and nothing is left at SQS, and, behind, each task has a message: in a
standard queue perhaps another one, from a replica that was killed before it knew that the first was taken.

| test | {columns} |
|---|{lines}|
"""


def note(test: str, **figures: float) -> None:
    """Keep the figures of a test for the page, if that is being written."""
    if FILE in os.environ:
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps({"test": test, **figures}) + "\n")


def page(rows: Sequence[Mapping[str, object]], day: str, commit: str) -> str:
    head = HEAD.format(day=day, commit=commit, columns=" | ".join(COLUMNS), lines="|".join("---" for _ in COLUMNS))
    lines = [f"| {row['test']} | {' | '.join(_figure(row.get(name)) for name in COLUMNS)} |" for row in rows]
    return head + "\n".join(lines) + "\n"


def _figure(value: object) -> str:
    return "" if value is None else f"{value:,}"


def main() -> int:
    commit = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.NamedTemporaryFile() as file:
        tests = (sys.executable, "-m", "pytest", "-n", "0", "-m", "long", *TESTS)
        ended = subprocess.run(tests, cwd=ROOT, env={**os.environ, FILE: file.name}, check=False)
        rows = [json.loads(line) for line in Path(file.name).read_text().splitlines()]
    if ended.returncode == 0:
        PAGE.write_text(page(rows, datetime.now(UTC).date().isoformat(), commit))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
