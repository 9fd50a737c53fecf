"""The figures that pages show are those of the run that they name."""

import json
from pathlib import Path

import pytest

from bench import pages


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_figures_of_the_run_it_names(page: Path) -> None:
    (found,) = pages.BLOCK.finditer(page.read_text())
    result = json.loads((pages.RESULTS / found["name"]).read_text())
    assert found[0] == pages.block(page, result, found["name"])


def test_both_pages_show_the_newest_run() -> None:
    shown = {found["name"] for page in pages.PAGES for found in pages.BLOCK.finditer(page.read_text())}
    assert shown == {pages.newest().name}
