"""The documentation as pages, and the runbooks of alarms among it."""

import re
from pathlib import Path

from app.edge.documentation import FOLDER
from app.runtime import alarms
from app.ui.screens.documentation import FOLDERS, RUNBOOKS, _rendered

PAGES = sorted(path.relative_to(FOLDER).as_posix() for folder in FOLDERS for path in (FOLDER / folder).glob("*.md"))


def test_every_page_is_rendered_and_every_link_leads_to_one_that_is_there() -> None:
    pages: dict[str, str] = {}
    for path in ["README.md", *PAGES]:
        found = _rendered("/ui", path)
        assert found is not None
        title, pages[f"/ui/docs/{path.removesuffix('.md')}"] = found[0], str(found[1])
        assert title and "<script" not in found[1] and ' style="' not in found[1], path
    for page, text in pages.items():
        for link in re.findall('href="(/ui/docs/[^"#]*)', text):
            assert link in pages, f"{page} links to {link}"
        for link, anchor in re.findall('href="(/ui/docs/[^"#]*)#([^"]*)"', text):
            assert f'id="{anchor}"' in pages[link], f"{page} links to {link}#{anchor}"


def test_every_alarm_has_a_runbook() -> None:
    codes = set(re.findall('"code": "([a-z_]+)"', Path(str(alarms.__file__)).read_text()))
    codes |= set(re.findall(r'_queue_alarm\(\s*row,\s*"([a-z_]+)"', Path(str(alarms.__file__)).read_text()))
    assert len(codes) > 10 and RUNBOOKS.keys() <= codes | {"database_unreachable"}
    listed = (FOLDER / "runbooks/alarms.md").read_text()
    assert all(code in RUNBOOKS or f"`{code}`" in listed for code in codes)
    for name in RUNBOOKS.values():
        assert (FOLDER / f"runbooks/{name}.md").is_file(), name
