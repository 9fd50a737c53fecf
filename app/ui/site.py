"""The pages: which there are, and how a request becomes one."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.domain.errors import Refusal
from app.domain.retries import MAX_ATTEMPTS
from app.edge.config import EdgeConfig
from app.edge.errors import INTERNAL, STATUS, TITLES, problem_headers
from app.runtime.core import Core
from app.service import sessions
from app.telemetry.events import REQUEST_FAILED, emit
from app.telemetry.logs import get_logger
from app.ui import formats, live
from app.ui.assets import Assets
from app.ui.kept import Kept
from app.ui.screens import (
    actions,
    audit,
    batches,
    documentation,
    handlers,
    keys,
    limits,
    overview,
    queue_edit,
    queues,
    replicas,
    schedules,
    sources,
    task_edit,
    tasks,
)
from app.ui.visits import (
    FORM_COOKIE,
    HEADERS,
    SESSION_COOKIE,
    Site,
    Visit,
    address,
    begin,
    cookie_of,
    read_form,
    render,
    set_cookie,
)

Screen = Callable[[Visit], Awaitable[Response]]

log = get_logger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
TITLES_HERE = {"unsupported_media_type": "Pages take forms"}
"""Of refusals that the API gives for another reason."""
Endpoint = Callable[[Request], Awaitable[Response]]

SCREENS: dict[str, Screen] = {
    "": overview.show,
    "/queues": queues.show_all,
    "/queues/{queue}": queues.show,
    "/queues/{queue}/edit": queue_edit.ask,
    "/queues/{queue}/purge": queues.ask_purge,
    "/queues/{queue}/redrive": queues.ask_redrive,
    "/tasks": tasks.show_all,
    "/find": tasks.find,
    "/tasks/{task}": tasks.show,
    "/tasks/{task}/edit": task_edit.ask,
    "/tasks/{task}/copy": task_edit.ask_copy,
    "/tasks/{task}/cancel": tasks.ask_cancel,
    "/batches": batches.show_all,
    "/batches/{batch}": batches.show,
    "/batches/{batch}/cancel": batches.ask_cancel,
    "/schedules": schedules.show_all,
    "/schedules/{schedule}": schedules.show,
    "/schedules/{schedule}/backfill": schedules.ask_backfill,
    "/sources": sources.show_all,
    "/sources/{source}": sources.show,
    "/handlers": handlers.show_all,
    "/handlers/{handler}": handlers.show,
    "/handlers/{handler}/disable": handlers.ask_disable,
    "/handlers/{handler}/rotate": handlers.ask_rotate,
    "/limits": limits.show_all,
    "/limits/{limit}": limits.show,
    "/replicas": replicas.show_all,
    "/actions": actions.show_all,
    "/actions/new": actions.ask,
    "/actions/{action}": actions.show,
    "/audit": audit.show_all,
    "/keys": keys.show_all,
    "/keys/{key}/revoke": keys.ask_revoke,
    "/keys/{key}/rotate": keys.ask_rotate,
    "/docs": documentation.show_all,
    "/docs/{folder}/{page}": documentation.show,
    "/events": live.watch,
}
ACTS: dict[str, Screen] = {
    "/queues/{queue}/edit": queue_edit.save,
    "/queues/{queue}/pause": queues.pause,
    "/queues/{queue}/resume": queues.resume,
    "/queues/{queue}/purge": queues.purge,
    "/queues/{queue}/redrive": queues.redrive,
    "/tasks/{task}/edit": task_edit.save,
    "/tasks/{task}/copy": task_edit.copy,
    "/tasks/{task}/cancel": tasks.cancel,
    "/tasks/{task}/retry": tasks.retry,
    "/batches/{batch}/cancel": batches.cancel,
    "/batches/{batch}/retry": batches.retry,
    "/schedules/{schedule}/pause": schedules.pause,
    "/schedules/{schedule}/resume": schedules.resume,
    "/schedules/{schedule}/trigger": schedules.trigger,
    "/schedules/{schedule}/backfill": schedules.backfill,
    "/sources/{source}/test": sources.test,
    "/sources/{source}/pause": sources.pause,
    "/sources/{source}/resume": sources.resume,
    "/handlers/{handler}/test": handlers.test,
    "/handlers/{handler}/enable": handlers.enable,
    "/handlers/{handler}/disable": handlers.disable,
    "/handlers/{handler}/rotate": handlers.rotate,
    "/limits/{limit}/pause": limits.pause,
    "/limits/{limit}/resume": limits.resume,
    "/actions": actions.start,
    "/actions/{action}/cancel": actions.cancel,
    "/keys": keys.create,
    "/keys/{key}/revoke": keys.revoke,
    "/keys/{key}/rotate": keys.rotate,
}
NAVIGATION = (
    (
        "Work",
        (
            ("overview", "Overview", "", "read"),
            ("queues", "Queues", "/queues", "read"),
            ("tasks", "Tasks", "/tasks", "read"),
            ("batches", "Batches", "/batches", "read"),
            ("schedules", "Schedules", "/schedules", "read"),
        ),
    ),
    (
        "Setup",
        (
            ("sources", "Sources", "/sources", "read"),
            ("handlers", "Handlers", "/handlers", "read"),
            ("limits", "Limits", "/limits", "tenant"),
            ("keys", "Keys", "/keys", "manage"),
        ),
    ),
    (
        "Operation",
        (
            ("actions", "Actions", "/actions", "read"),
            ("audit", "Audit", "/audit", "manage"),
            ("replicas", "Replicas", "/replicas", "operate"),
            ("docs", "Documentation", "/docs", "read"),
        ),
    ),
)
"""Groups of pages: the name of each, its title, its path, and the scope it needs (`tenant`: not for keys confined to queues)."""


def routes(core: Core, edge: EdgeConfig, label: str | None) -> list[Route]:
    """Return the routes of the pages. `label` is SLUICE_UI_LABEL."""
    site = _site(core, edge, label)
    found: list[Route] = [
        Route("/ui/static/{name}", _answered(site, "/ui/static/{name}", site.assets.serve)),
    ]

    async def without_slash(_request: Request) -> Response:
        return Response(status_code=308, headers={"location": site.base})

    found.append(Route("/ui/", without_slash))

    def add(path: str, method: str, endpoint: Endpoint) -> None:
        found.append(Route("/ui" + path, _answered(site, "/ui" + path, endpoint), methods=[method]))

    add("/login", "GET", lambda request: _login_page(site, request))
    add("/login", "POST", lambda request: _login(site, request))
    add("/logout", "POST", lambda request: _logout(site, request))
    for path, screen in SCREENS.items():
        add(path, "GET", _seen(site, screen))
    for path, act in ACTS.items():
        add(path, "POST", _acted(site, act))
    pages = list(found)

    async def nowhere(request: Request) -> Response:
        await begin(site, request)
        return _nowhere(site, request, pages)

    for path in ("/ui", "/ui/{rest:path}"):
        found.append(Route(path, _answered(site, path, nowhere), methods=METHODS))
    return found


def _site(core: Core, edge: EdgeConfig, label: str | None) -> Site:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": formats.number,
        "rate": formats.rate,
        "percent": formats.percent,
        "seconds": formats.seconds,
        "size": formats.size,
        "when": formats.when,
        "exactly": formats.exactly,
        "took": formats.took,
        "short": formats.short,
        "spark": formats.spark,
    }
    templates.globals |= {
        "MAX_ATTEMPTS": MAX_ATTEMPTS,
        "NAVIGATION": NAVIGATION,
        "NOTHING": formats.NOTHING,
        "kept": Kept(),
        "runbook_of": documentation.runbook_of,
    }
    base = urlsplit(edge.public_url).path.rstrip("/") + "/ui"
    text, _, color = (label or "").partition(":")
    return Site(core, edge, Assets(), templates, base, text.strip() or None, color or None)


def _seen(site: Site, screen: Screen) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await screen(await begin(site, request))

    return endpoint


def _acted(site: Site, act: Screen) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        visit = await begin(site, request)
        visit.form = await read_form(site, request, None if visit.new_cookie else visit.cookie)
        return await act(visit)

    return endpoint


def _answered(site: Site, path: str, endpoint: Endpoint) -> Endpoint:
    """Turn refusals and failures into pages; whoever has no session is sent to the login."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            if refusal.code == "unauthenticated" and site.asks_for_key and not request.url.path.endswith("/login"):
                return _to_login(site, request)
            return _refused(site, refusal)
        except ClientDisconnect:
            raise
        except Exception:
            emit(log, REQUEST_FAILED, method=request.method, route=path, code=INTERNAL.code, exc_info=True)
            return _refused(site, INTERNAL)

    return answer


def _refused(site: Site, refusal: Refusal) -> Response:
    status = STATUS[refusal.code]
    shown = {"title": TITLES_HERE.get(refusal.code, TITLES[refusal.code]), "refusal": refusal}
    response = render(site, "refusal.html", status, visit=None, notice=None, **shown)
    for name, value in problem_headers(refusal).items():
        if name == "retry-after":
            response.headers[name] = value
    return response


def _to_login(site: Site, request: Request) -> Response:
    path = request.url.path.removeprefix("/ui")
    wanted = None
    if request.method == "GET":
        wanted = path + (f"?{request.url.query}" if request.url.query else "")
    location = address(site.base, "login", next=wanted)
    return Response(status_code=303, headers={"location": location, "cache-control": "no-store"})


def _nowhere(site: Site, request: Request, pages: Sequence[Route]) -> Response:
    """Answer for a page that does not exist, or not with this method."""
    allowed = {method for page in pages if page.path_regex.match(request.url.path) for method in page.methods or ()}
    if not allowed:
        raise Refusal("not_found", "there is no such page; the navigation lists them")
    listed = ", ".join(sorted(allowed))
    response = _refused(site, Refusal("method_not_allowed", f"{request.method} is not allowed here, only {listed}"))
    response.headers["allow"] = listed
    return response


async def _login_page(site: Site, request: Request) -> Response:
    if not site.asks_for_key:
        return Response(status_code=303, headers={"location": site.base})
    return _login_form(site, request, _next_of(request.query_params.get("next")))


def _login_form(site: Site, request: Request, wanted: str, fault: str | None = None, status: int = 200) -> Response:
    cookie = cookie_of(request, FORM_COOKIE)
    given = cookie or sessions.make_cookie()
    token = sessions.form_token(given)
    response = render(site, "login.html", status, visit=None, notice=None, token=token, wanted=wanted, fault=fault)
    if cookie is None:
        set_cookie(response, site, FORM_COOKIE, given)
    return response


async def _login(site: Site, request: Request) -> Response:
    form = await read_form(site, request, cookie_of(request, FORM_COOKIE))
    wanted = _next_of(form.get("next"))
    try:
        session = await sessions.open_session(site.core, form.get("key", "").strip())
    except Refusal as refusal:
        if refusal.code != "unauthenticated":
            raise
        return _login_form(site, request, wanted, "This key is unknown, or it has been revoked.", 401)
    response = Response(status_code=303, headers={"location": site.base + wanted, "cache-control": "no-store"})
    set_cookie(response, site, SESSION_COOKIE, session, sessions.SESSION_SECONDS)
    return response


def _next_of(wanted: str | None) -> str:
    """Return where to go after the login, below the base: never another site."""
    return wanted if wanted and wanted.startswith("/") and wanted.isascii() and wanted.isprintable() else ""


async def _logout(site: Site, request: Request) -> Response:
    session = cookie_of(request, SESSION_COOKIE)
    await read_form(site, request, session)
    if session is not None:
        await sessions.close_session(site.core, session)
    response = Response(status_code=303, headers={**HEADERS, "location": address(site.base, "login")})
    response.delete_cookie(SESSION_COOKIE, path=site.base)
    return response
