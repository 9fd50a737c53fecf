"""CONTRIBUTING names files and targets that are there."""

import re

import pytest

from app.store import numbers
from app.store.numbers import Lock
from tests.docs.pages import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
FOLDERS = ("alembic", "app", "bench", "docs", "examples", "openapi", "requirements", "sdk", "tests")
PATHS = sorted(set(re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", PAGE.read_text())))
TARGETS = set(re.findall(r"`?make ([a-z][a-z-]+)", PAGE.read_text()))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_table_of_locks_has_all_of_them_and_the_code_has_it_too() -> None:
    text = PAGE.read_text().partition("## Locks")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z_]{4,})`", text)
    assert sorted(named) == sorted(lock.name for lock in Lock)
    in_order = [name for name in re.findall(r"^([A-Z_]{4,})\s", numbers.__doc__ or "", re.MULTILINE) if name in named]
    assert named == in_order


def test_every_target_it_names_is_there() -> None:
    there = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert TARGETS and there >= TARGETS
