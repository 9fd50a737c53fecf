"""CONTRIBUTING names files and targets that are there."""

import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
FOLDERS = ("alembic", "app", "bench", "docs", "examples", "openapi", "requirements", "tests")
PATHS = sorted(set(re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", PAGE.read_text())))
TARGETS = set(re.findall(r"`?make ([a-z][a-z-]+)", PAGE.read_text()))


@pytest.mark.parametrize("path", PATHS)
def test_every_path_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_target_it_names_is_there() -> None:
    there = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert TARGETS and there >= TARGETS
