"""What every request to a page has in common: the caller of its session, the token of its forms, and the headers of its answer."""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import Response

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.ids import parse_uuid
from app.domain.names import is_name
from app.domain.overviews import Overview
from app.edge.admission import Hold
from app.edge.auth import with_origin
from app.edge.body import read_body, require_size
from app.edge.config import EdgeConfig
from app.runtime.core import Core
from app.service import overview, sessions
from app.ui.assets import Assets
from app.ui.notices import NOTICES
from app.ui.patience import Patience

T = TypeVar("T")
NamedNoun = Literal["queue", "source", "handler", "schedule", "limit"]
NumberedNoun = Literal["task", "batch", "action"]
SESSION_COOKIE = "sluice_session"
FORM_COOKIE = "sluice_form"
"""Of visitors without a session: what the tokens of their forms are made from."""
FORM_BYTES = 262_144
FORM_FIELDS = 100
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ONCE = re.compile("[0-9a-f]{16}")
HTML = "text/html; charset=utf-8"
ON_OVERVIEW = "overview from:body, overview from:body delay:4s"
"""The second makes up for an event and a renewal that two replicas served, one of which knew less."""
TOKEN_OF_EACH = secrets.token_hex(16).encode()
"""Stands for the token of forms in what many share."""
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What all visits share."""

    core: Core
    edge: EdgeConfig
    assets: Assets
    templates: Environment
    base: str
    """The path of the pages as browsers see it: /ui after the path of SLUICE_PUBLIC_URL."""
    label: str | None
    label_color: str | None
    patience: Patience = field(default_factory=Patience)

    @property
    def asks_for_key(self) -> bool:
        return self.edge.anonymous is None

    @property
    def secure(self) -> bool:
        return self.edge.public_url.startswith("https:")


@dataclass(slots=True)
class Visit:
    """One request of a caller."""

    site: Site
    request: Request
    caller: Caller
    cookie: str
    """What the tokens of its forms are made from."""
    new_cookie: bool = False
    form: dict[str, str] = field(default_factory=dict)
    """The fields of a POST."""
    shared: bool = False
    """It is rendered for others, too."""

    @property
    def core(self) -> Core:
        return self.site.core

    def sees(self, needs: str) -> bool:
        """Return whether the navigation shows a page that needs this."""
        return self.caller.queues is None if needs == "tenant" else self.caller.may(needs)

    def query(self, name: str) -> str | None:
        """Return a parameter of the address; None if it is absent or empty, as an empty field of a form is."""
        return self.request.query_params.get(name) or None

    def name(self, noun: NamedNoun) -> str:
        """Return the name in the path. Raises Refusal (not found) for what cannot be one."""
        found: str = self.request.path_params[noun]
        if not is_name(found):
            raise Refusal(f"{noun}_not_found", f"there is no {noun} with this name")
        return found

    def id(self, noun: NumberedNoun) -> str:
        """Return the id in the path. Raises Refusal (not found) for what cannot be one."""
        found = parse_uuid(self.request.path_params[noun])
        if found is None:
            raise Refusal(f"{noun}_not_found", f"there is no {noun} with this id")
        return found

    async def live_page(
        self,
        template: str,
        here: str,
        find: Callable[[], Awaitable[dict[str, Any]]],
        on: str = ON_OVERVIEW,
        watched: str | None = None,
    ) -> Response:
        """Answer with a page that renews itself, on an event or after a time (`on`, as htmx has it).

        To a renewal, answer with the part that changes. On an overview, that is made once for all who see the same: what `find`
        returns must depend only on the address and on what the caller may see. `watched`: the task whose events are waited for.
        """
        frame: dict[str, Any] = {"live": self._own_address(), "live_on": on, "watched": watched}
        if self.request.headers.get("hx-request") != "true":
            overview.share_anew(self.core, self.caller, self._own_address())
            return self.page(template, here=here, layout="base.html", **frame, **await find())

        async def make(visit: Visit) -> bytes:
            shown = {"visit": visit, "now": self.core.clock.now(), "layout": "fragment.html"}
            return text_of(self.site, template, **shown, **frame, **await find()).encode()

        if on.startswith(ON_OVERVIEW):
            one = replace(self, shared=True)
            found = await overview.shared(self.core, self.caller, self._own_address(), lambda: make(one))
        else:
            found = await make(self)
        return Response(found.replace(TOKEN_OF_EACH, self.form_token.encode()), headers=HEADERS, media_type=HTML)

    async def look(self) -> Overview | None:
        """Return the overview, if it takes too long the one before; None if there is none yet."""
        caller = self.caller
        key = "overview", caller.tenant_id, caller.may("operate"), caller.queues
        return await self.site.patience.ask(key, lambda: overview.overview(self.core, caller))

    async def soon(self, what: str, make: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `make` returns for this page, as app/ui/patience.py says; None if it cannot be had in a moment."""
        caller = self.caller
        key = caller.tenant_id, caller.scope, caller.queues, caller.payloads, self.request.url.path, what
        return await self.site.patience.ask(key, make)

    def _own_address(self) -> str:
        """Return the address of this page, without what it was told to say."""
        given = [
            (name, value) for name, value in self.request.query_params.multi_items() if name not in ("notice", "n")
        ]
        path = self.site.base + self.request.url.path.removeprefix("/ui")
        return f"{path}?{urlencode(given)}" if given else path

    def page(self, template: str, status: int = 200, **shown: Any) -> Response:
        notice = NOTICES.get(self.query("notice") or "")
        count = self.query("n") or ""
        text = None
        if notice is not None:
            text = notice.words(int(count) if count.isdecimal() and len(count) < 12 else 0)
        shown |= {"visit": self, "now": self.core.clock.now(), "notice": text}
        response = render(self.site, template, status, **shown)
        if self.new_cookie:
            set_cookie(response, self.site, FORM_COOKIE, self.cookie)
        return response

    def to(self, *parts: str, **query: object) -> str:
        """Return the address of a page."""
        return address(self.site.base, *parts, **query)

    def redirect(self, *parts: str, **query: object) -> Response:
        """Answer a POST: reloading the page that follows does not repeat it."""
        return Response(status_code=303, headers={"location": self.to(*parts, **query), "cache-control": "no-store"})

    @property
    def once(self) -> str | None:
        """Return what names this sending of a form, so that a second one does nothing more; None if the form does not say."""
        given = self.form.get("once", "")
        return f"page-{given}" if ONCE.fullmatch(given) else None

    def new_once(self) -> str:
        """Return a field of a form that is to act once, however often it is sent."""
        return secrets.token_hex(8)

    @property
    def form_token(self) -> str:
        return TOKEN_OF_EACH.decode() if self.shared else sessions.form_token(self.cookie)


def address(base: str, *parts: str, **query: object) -> str:
    path = "/".join((base, *(quote(part, safe="") for part in parts)))
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path


def render(site: Site, template: str, status: int, **shown: Any) -> Response:
    return Response(text_of(site, template, status=status, **shown), status, HEADERS, HTML)


def text_of(site: Site, template: str, **shown: Any) -> str:
    return site.templates.get_template(template).render(site=site, **shown)


def set_cookie(response: Response, site: Site, name: str, value: str, max_age: int | None = None) -> None:
    response.set_cookie(name, value, max_age, path=site.base, secure=site.secure, httponly=True, samesite="strict")


def cookie_of(request: Request, name: str) -> str | None:
    value = request.cookies.get(name)
    return value if value and len(value) <= sessions.MAX_COOKIE else None


async def begin(site: Site, request: Request) -> Visit:
    """Return the visit of a request. Raises Refusal: unauthenticated, unavailable."""
    if site.edge.anonymous is not None:
        caller = await site.edge.anonymous()
        cookie = cookie_of(request, FORM_COOKIE)
        visit = Visit(site, request, caller, cookie or sessions.make_cookie(), new_cookie=cookie is None)
    else:
        session = cookie_of(request, SESSION_COOKIE)
        if session is None:
            raise Refusal("unauthenticated", "sign in first")
        visit = Visit(site, request, await sessions.caller_of(site.core, session), session)
    hold: Hold | None = request.scope.get("hold")
    if hold is not None:
        hold.enter(visit.caller.tenant_id)
    visit.caller = with_origin(visit.caller, request.scope)
    return visit


async def still_signed_in(visit: Visit) -> None:
    """Raises Refusal (unauthenticated) once the session or its key has ended."""
    if visit.site.asks_for_key:
        await sessions.caller_of(visit.core, visit.cookie)


async def read_form(site: Site, request: Request, cookie: str | None) -> dict[str, str]:
    """Return the fields of a form, once it is certain that a page of this service sent it. Raises Refusal: forbidden, invalid,
    malformed, too_large."""
    require_own_page(site, request.headers)
    require_size(request.headers.get("content-length"), FORM_BYTES)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request.scope, request.receive, FORM_BYTES)
    if media_type != "application/x-www-form-urlencoded":
        raise Refusal("unsupported_media_type", "the pages take application/x-www-form-urlencoded")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict")
    except ValueError:
        raise Refusal("malformed", "the form cannot be parsed") from None
    form = dict(fields)
    if cookie is None or not sessions.is_form_token(cookie, form.pop("token", "")):
        raise Refusal("forbidden", "the form is older than your session; go back, reload the page and try again")
    if any("\0" in value for value in form.values()):
        raise Refusal("malformed", "the form has a NUL character")
    return form


def require_own_page(site: Site, headers: Mapping[str, str]) -> None:
    """Refuse what a page of another site sends. Browsers say so in Sec-Fetch-Site; older ones, and those that speak plain HTTP,
    send Origin alone. Raises Refusal (forbidden)."""
    fetched = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if fetched is not None:
        own = fetched == "same-origin"
    elif origin is not None:
        own = urlsplit(origin).netloc in (headers.get("host"), urlsplit(site.edge.public_url).netloc)
    else:
        own = True  # no browser: the token decides
    if not own:
        raise Refusal("forbidden", "another site's page sent this request; open the page itself and try again")
