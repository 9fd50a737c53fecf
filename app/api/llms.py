"""`/llms.txt` and `/llms-full.txt`: the documentation as language models read it (https://llmstxt.org), made from docs/ itself."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.edge.documentation import FOLDER

FIRST = ("concepts", "guides", "reference", "runbooks")
"""The order of the sections; others come after them, by name."""
OPTIONAL = "decisions"
"""What the index lists last, as llmstxt.org says for pages one can do without, and the full text leaves out."""

ABOUT = """\
# Sluice

> Durable queues and schedules as a plain HTTP service, on nothing but Postgres. Tasks are enqueued over HTTP, delivered to
> webhooks or pulled by workers, and retried until they succeed or are dead with a reason.
"""
INDEX = """
Each page is Markdown. /llms-full.txt has all of them but the decisions in one file; /openapi.json describes the API.
"""


@dataclass(frozen=True)
class Page:
    path: str
    """Below docs/, as `guides/handlers.md`."""
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ").strip()

    @property
    def line(self) -> str:
        """The first sentence that says more than what the page is generated from, without links; empty if there is no prose."""
        paragraph = re.search(r"^[A-Z`*\[][^\n]*(?:\n[^\n]+)*", self.text.partition("\n")[2], re.MULTILINE)
        if paragraph is None:
            return ""
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph[0].split())).removeprefix("**Context.** ")
        sentences = re.split(r"(?<=[.?!])\s", plain)
        return next((line for line in sentences if not line.startswith("Generated from")), sentences[0]).rstrip(":")


def pages(folder: Path) -> dict[str, list[Page]]:
    """Return the pages of each section, in the order in which they are shown."""
    found: dict[str, list[Page]] = {}
    for path in sorted(folder.glob("*/**/*.md")):
        name = path.relative_to(folder).as_posix()
        if path.name != "README.md":
            found.setdefault(name.partition("/")[0], []).append(Page(name, path.read_text(encoding="utf-8")))
    return {section: found[section] for section in sorted(found, key=_rank)}


def index(sections: dict[str, list[Page]]) -> str:
    """Return llms.txt: each page's title, with a link and a line."""
    return "".join([ABOUT, INDEX, *_index(sections)])


def full(sections: dict[str, list[Page]]) -> str:
    """Return llms-full.txt: the text of every page but the optional ones, below a line that says which it is."""
    texts = (page for section, found in sections.items() if section != OPTIONAL for page in found)
    return "".join([ABOUT, *(f"\n<!-- {page.path} -->\n\n{page.text.strip()}\n" for page in texts)])


def routes() -> Sequence[BaseRoute]:
    """Return the routes of both documents, and of the pages that the index links to."""

    async def llms(_request: Request) -> Response:
        return _reply((await _documents()).index)

    async def llms_full(_request: Request) -> Response:
        return _reply((await _documents()).full)

    async def page(request: Request) -> Response:
        text = (await _documents()).pages.get(request.path_params["path"])
        if text is None:
            raise HTTPException(404)
        return _reply(text, "text/markdown")

    return [Route("/llms.txt", llms), Route("/llms-full.txt", llms_full), Route("/llms/{path:path}", page)]


def _index(sections: dict[str, list[Page]]) -> Iterator[str]:
    for section, found in sections.items():
        yield f"\n## {'Optional' if section == OPTIONAL else section.capitalize()}\n\n"
        for page in found:
            yield f"- [{page.title}](/llms/{page.path})" + (f": {page.line}" if page.line else "") + "\n"


def _rank(section: str) -> tuple[bool, int, str]:
    return section == OPTIONAL, FIRST.index(section) if section in FIRST else len(FIRST), section


@dataclass(frozen=True)
class _Documents:
    index: bytes
    full: bytes
    pages: dict[str, bytes]


async def _documents() -> _Documents:
    return await asyncio.to_thread(_read)


@cache
def _read() -> _Documents:
    sections = pages(FOLDER)
    texts = {page.path: page.text.encode() for found in sections.values() for page in found}
    return _Documents(index(sections).encode(), full(sections).encode(), texts)


def _reply(text: bytes, media_type: str = "text/plain") -> Response:
    return Response(text, media_type=f"{media_type}; charset=utf-8")
