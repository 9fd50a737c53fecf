"""Links lead somewhere, and decision records stay short."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_the_index_names_every_concept_guide_and_runbook() -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / link).resolve() for link in links(index)}
    pages = {page for folder in ("concepts", "guides", "runbooks") for page in ROOT.glob(f"docs/{folder}/*.md")}
    assert pages <= named


@pytest.mark.parametrize("record", DECISIONS, ids=lambda record: record.stem)
def test_a_decision_record_is_numbered_and_short(record: Path) -> None:
    text = record.read_text()
    assert re.match(rf"# {record.name[:4]}\. \S", text)
    assert len(text.splitlines()) <= 40
    assert all(
        re.match(r"\*\*Superseded by\*\* \[\d{4}\]\(", line) for line in text.splitlines() if "**Superseded" in line
    )
    numbers = [other.name[:4] for other in DECISIONS]
    assert numbers.count(record.name[:4]) == 1
