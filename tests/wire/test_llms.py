"""The documentation for language models: an index, all of it in one text, and each page."""

import re

from app.api.llms import Page
from tests.docs.pages import ROOT
from tests.wire.api import Api

PAGES = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/*/**/*.md") if path.name != "README.md"}


async def test_the_index_names_every_page_once_and_says_what_it_is_about(api: Api) -> None:
    reply = await api.get("/llms.txt")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text.startswith("# Sluice\n\n> ")
    found = re.findall(r"^- \[[^\]]+\]\(/llms/([^)]+)\)(: .+)?$", reply.text, re.MULTILINE)
    assert sorted(path for path, _ in found) == sorted(PAGES)
    guides = {
        path: line for path, line in found if path.startswith(("concepts/", "guides/", "reference/", "runbooks/"))
    }
    assert [path for path, line in guides.items() if len(line) < 20] == []
    assert reply.text.index("\n## Optional\n") > reply.text.index("\n## Guides\n")


async def test_every_page_is_served_as_it_stands(api: Api) -> None:
    for path in sorted(PAGES)[::10]:
        reply = await api.get(f"/llms/{path}")
        assert reply.headers["content-type"] == "text/markdown; charset=utf-8"
        assert reply.text == (ROOT / "docs" / path).read_text()


async def test_nothing_else_of_the_files_is_served(api: Api) -> None:
    for path in (
        "README.md",
        "guides",
        "pictures/task-light.png",
        "../pyproject.toml",
        "%2e%2e/pyproject.toml",
        "nothing.md",
    ):
        reply = await api.get(f"/llms/{path}")
        assert reply.status_code == 404 and reply.json()["code"] == "not_found"


async def test_the_full_text_has_every_page_but_the_decisions(api: Api) -> None:
    text = (await api.get("/llms-full.txt")).text
    for path in PAGES:
        whole = (ROOT / "docs" / path).read_text().strip()
        assert (whole in text) == (not path.startswith("decisions/")), path


def test_the_line_of_a_page_is_its_first_sentence_that_says_something() -> None:
    assert Page("a.md", "# A\n\n| a |\n\nIt [links](b.md) to\n`c.d`. More.").line == "It links to `c.d`."
    assert Page("a.md", "# A\n\nGenerated from `x.py`. It lists\nx:\n").line == "It lists x"
    assert Page("a.md", "# A\n\n- only\n- a list\n").line == ""
