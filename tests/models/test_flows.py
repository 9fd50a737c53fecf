"""The model of park and signal holds in every interleaving, and each mechanism is needed: spin looks at all of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("flows.pml")
STRANDED, OVER = "invalid end state", "assertion violated"

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc"),
]


def explored(directory: Path, *options: str, **defined: int | None) -> str:
    """Explore the model with these definitions; return what the verifier printed."""
    given = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defined.items()]
    for command in (
        ["spin", "-a", *given, str(MODEL)],
        ["gcc", "-O1", "-DSAFETY", "-DMEMLIM=1500", "-o", "pan", "pan.c"],
        ["./pan", "-m100000", *options],
    ):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def errors(printed: str) -> int:
    found = re.search(r"errors: (\d+)", printed)
    assert found and "reached -DMEMLIM" not in printed and "max search depth too small" not in printed, printed
    return int(found[1])


@pytest.mark.parametrize(
    ("claimers", "lanes", "limit", "tasks"),
    [(1, 1, 1, 3), (1, 2, 1, 2), (2, 1, 2, 3), (2, 2, 1, 2)],
)
def test_nothing_waits_beside_free_room_and_no_limit_is_exceeded(
    claimers: int, lanes: int, limit: int, tasks: int, tmp_path: Path
) -> None:
    printed = explored(tmp_path, CLAIMERS=claimers, LANES=lanes, LIMIT=limit, TASKS=tasks)
    assert errors(printed) == 0, printed


@pytest.mark.parametrize(
    ("mutant", "claimers", "lanes"),
    [
        ("FOLD_UNGATED", 1, 1),
        ("STALE_PARK", 1, 1),
        ("ROOM_KEPT", 1, 1),
        ("LOCKED_IS_NONE", 1, 1),
        ("ONE_LANE", 1, 2),
    ],
)
def test_a_task_is_stranded_without(mutant: str, claimers: int, lanes: int, tmp_path: Path) -> None:
    printed = explored(tmp_path, CLAIMERS=claimers, LANES=lanes, **{f"MUTANT_{mutant}": None})
    assert errors(printed) == 1 and STRANDED in printed, printed


def test_a_limit_is_exceeded_if_it_is_counted_before_the_gate_is_taken(tmp_path: Path) -> None:
    # -E: report no end states, but only what runs above the limit
    printed = explored(tmp_path, "-E", CLAIMERS=2, MUTANT_COUNT_UNGATED=None)
    assert errors(printed) == 1 and OVER in printed, printed
