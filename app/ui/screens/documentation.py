"""The documentation of this release, so that the runbook of an alarm is one click away, even where no other site can be reached."""

import posixpath
import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from starlette.responses import Response

from app.domain.errors import Refusal
from app.domain.names import is_name
from app.edge.documentation import FOLDER
from app.ui.visits import Visit

FOLDERS = ("concepts", "guides", "reference", "runbooks")
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
RUNBOOKS = {
    "breaker_open": "handler-suffers",
    "connections_short": "connections-short",
    "database_unreachable": "database-unreachable",
    "global_limit": "limit-saturated",
    "handler_disabled": "handler-disabled",
    "no_engine": "no-engine",
    "no_worker": "queue-stopped",
    "old_xmin": "old-transaction",
    "queue_paused": "queue-paused-with-work",
    "replica_silent": "replica-silent",
    "schedule_overdue": "schedule-is-late",
    "source_stuck": "source-is-stuck",
    "tasks_dying": "tasks-are-dying",
}
"""By the code of an alarm. The others are explained on the page of all alarms."""


def runbook_of(code: str) -> tuple[str, str, str]:
    """Return the parts of the address of an alarm's runbook."""
    return "docs", "runbooks", RUNBOOKS.get(code, "alarms")


async def show_all(visit: Visit) -> Response:
    return _page(visit, "README.md")


async def show(visit: Visit) -> Response:
    folder, name = (visit.request.path_params[part] for part in ("folder", "page"))
    if folder not in FOLDERS or not is_name(name):
        raise _nothing()
    return _page(visit, f"{folder}/{name}.md")


def _page(visit: Visit, path: str) -> Response:
    text = _rendered(visit.site.base, path)
    if text is None:
        raise _nothing()
    title, body = text
    return visit.page("documentation.html", here="docs", title=title, text=body, whole=path == "README.md")


def _nothing() -> Refusal:
    return Refusal("not_found", "the documentation has no such page")


@lru_cache(maxsize=64)
def _rendered(base: str, path: str) -> tuple[str, Markup] | None:
    """Return the title of a page and its HTML; None if there is no such page."""
    try:
        text = (FOLDER / path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    env: dict[str, Any] = {"base": base, "folder": posixpath.dirname(path)}
    tokens = MARKDOWN.parse(text, env)
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _slug(inside.content))
    title = tokens[1].content
    return title, Markup(MARKDOWN.renderer.render(tokens[3:], MARKDOWN.options, env))  # noqa: S704  # no HTML passes the parser


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as the pages link to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _link(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]) -> str:
    """Point a link to another page of the documentation there; what is not part of it is no link."""
    address = str(tokens[index].attrGet("href") or "")
    parts = urlsplit(address)
    if not parts.scheme and parts.path:
        target = posixpath.normpath(posixpath.join(env["folder"], parts.path))
        folder, _, name = target.removesuffix(".md").partition("/")
        known = target.endswith(".md") and folder in FOLDERS and is_name(name)
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        tokens[index].attrs = {"href": f"{env['base']}/docs/{folder}/{name}{anchor}"} if known else {}
    return self.renderToken(tokens, index, options, env)


def _table(
    self: RendererHTML, _tokens: Sequence[Token], _index: int, _options: Any, _env: MutableMapping[str, Any]
) -> str:
    return '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'


def _table_end(
    self: RendererHTML, _tokens: Sequence[Token], _index: int, _options: Any, _env: MutableMapping[str, Any]
) -> str:
    return "</table></div>"


def _picture(
    self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: MutableMapping[str, Any]
) -> str:
    return ""  # pictures are not part of the wheel


MARKDOWN.add_render_rule("link_open", _link)
MARKDOWN.add_render_rule("table_open", _table)
MARKDOWN.add_render_rule("table_close", _table_end)
MARKDOWN.add_render_rule("image", _picture)
