"""The pages in a real browser: Debian's Chromium, driven by playwright.

axe-core comes by npm (tests/ui/axe) and is injected over the debugger: the pages' policy forbids every script but their own.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from app.settings import LOOPBACK, Settings
from app.sources.kinds import SourceError
from tests import fake_sources
from tests.databases import create_database, drop_database
from tests.fake_sources import FakeQueue
from tests.sluices import Replica, replica_with
from tests.ui.visitors import Visitor, key_of
from tests.wire.api import fresh

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(180)]

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parent / "axe/node_modules/axe-core/axe.min.js"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}
RUN_AXE = """
axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(v => [v.id, v.nodes.map(n => n.html)]))
"""


@dataclass
class World:
    """A replica with something of everything, and who looks at it."""

    replica: Replica
    operator: Visitor
    queue: str = "mail"
    task: str = ""
    dead: str = ""
    batch: str = ""
    waiting: str = ""
    root: str = ""
    elsewhere: FakeQueue = field(default_factory=FakeQueue)
    """Where the source orders receives from."""
    paths: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
async def world(server_url: str) -> AsyncIterator[World]:
    name = fresh("sluice_test").replace("-", "_")
    given = {
        "database_url": await create_database(server_url, name),
        "port": 0,
        "drain_grace_seconds": 0,
        "auth": "on",
        "egress_allow": LOOPBACK,
        "ui_label": "staging:orange",
    }
    async with replica_with(Settings.model_validate(given)) as replica:
        operator = Visitor(replica)
        operator.key = await key_of(replica, "operate")
        yield await filled(World(replica, operator))
    await drop_database(server_url, name)


async def filled(world: World) -> World:
    api = world.operator.api
    await api("PUT", "/limits/warehouse", '{"max_concurrency": 2}')
    await api(
        "PUT", "/queues/mail", '{"description": "Letters", "limits": [{"name": "warehouse"}], "max_concurrency": 5}'
    )
    await api("PUT", "/handlers/crm", '{"url": "http://127.0.0.1:9/tasks", "breaker": {}}')
    await api("PUT", "/queues/sync", '{"handler": "crm", "retry": {"max_attempts": 1}}')
    await api("PUT", "/schedules/nightly", '{"queue": "mail", "cron": "0 3 * * *", "payload": {"kind": "report"}}')
    await api("POST", "/schedules/nightly/trigger")
    task = '{"payload": {"to": "ada", "n": 12345678901234567890}, "type": "letter", "tags": ["paper"], "correlation_id": "c-1"}'
    world.task = (await api("POST", "/queues/mail/tasks", task))["id"]
    leased = await api("POST", "/queues/mail/leases", '{"max_tasks": 1}')
    [taken] = leased["tasks"]
    headers = {"sluice-lease-token": taken["lease_token"], "content-type": "application/json"}
    failed = await world.replica.client.post(
        f"/tasks/{taken['id']}/fail", headers=headers, content='{"error": "the printer is on fire", "retryable": false}'
    )
    assert failed.is_success, failed.text
    world.dead = taken["id"]
    tasks = ", ".join(['{"payload": 1}'] * 3)
    world.batch = (await api("POST", "/batches", f'{{"queue": "mail", "tasks": [{tasks}]}}'))["id"]
    await api("POST", "/queues/sync/tasks", '{"payload": 1}')
    await api("PUT", "/queues/tree", "{}")
    world.root = (await api("POST", "/queues/tree/tasks", '{"payload": 1}'))["id"]
    [taken] = (await api("POST", "/queues/tree/leases"))["tasks"]
    headers = {"sluice-lease-token": taken["lease_token"], "content-type": "application/json"}
    follow = '{"tasks": [{"queue": "tree", "idempotency_key": "1", "payload": 1, "type": "leaf"}]}'
    assert (
        await world.replica.client.post(f"/tasks/{taken['id']}/complete", headers=headers, content=follow)
    ).is_success
    world.waiting = (await api("POST", "/queues/tree/tasks", '{"payload": {"a": 1}, "delay_seconds": 3600}'))["id"]
    broken = FakeQueue()
    broken.fails = SourceError("the server answers <b>NOAUTH</b> Authentication required." + "x" * 200)
    fake_sources.install(world.replica.sluice.core, {"orders": world.elsewhere, "y" * 300: broken})
    for name, stream in (("orders", "orders"), ("broken", "y" * 300)):
        definition = fake_sources.definition("mail", stream=stream, tags=["shop"], headers={"x-shop": "1"})
        await api("PUT", f"/sources/{name}", json.dumps(definition))
    world.paths = {
        "overview": "",
        "queues": "/queues",
        "queue": "/queues/mail",
        "queue edit": "/queues/mail/edit",
        "queue json": "/queues/mail/edit?as=json",
        "purge": "/queues/mail/purge",
        "redrive": "/queues/mail/redrive",
        "tasks": "/tasks?queue=mail",
        "fault": "/tasks?batch=7",
        "task": f"/tasks/{world.task}",
        "dead": f"/tasks/{world.dead}",
        "task edit": f"/tasks/{world.waiting}/edit",
        "task copy": f"/tasks/{world.dead}/copy",
        "tree": f"/tasks/{world.root}",
        "batches": "/batches",
        "batch": f"/batches/{world.batch}",
        "schedules": "/schedules",
        "schedule": "/schedules/nightly",
        "backfill": "/schedules/nightly/backfill?from=2026-01-01T00:00:00Z&to=2026-01-04T00:00:00Z",
        "sources": "/sources",
        "source": "/sources/orders",
        "broken source": "/sources/broken",
        "handlers": "/handlers",
        "handler": "/handlers/crm",
        "disable": "/handlers/crm/disable",
        "limits": "/limits",
        "limit": "/limits/warehouse",
        "replicas": "/replicas",
        "actions": "/actions",
        "ask": "/actions/new?kind=cancel&queue=mail",
        "audit": "/audit",
        "keys": "/keys",
        "docs": "/docs",
        "runbook": "/docs/runbooks/alarms",
        "nowhere": "/nowhere",
    }
    return world


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        await found.close()


async def signed_in(world: World, browser: Browser, key: str | None = None, **looks: Any) -> BrowserContext:
    context = await browser.new_context(**looks)
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui")
    await page.get_by_label("API key").fill(key or world.operator.key)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"{world.replica.url}/ui")
    await page.close()
    return context


async def violations(context: BrowserContext, page: Page) -> list[Any]:
    session = await context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": AXE.read_text()})
    found = await session.send("Runtime.evaluate", {"expression": RUN_AXE, "awaitPromise": True, "returnByValue": True})
    await session.detach()
    assert "exceptionDetails" not in found, found
    result: list[Any] = found["result"]["value"]
    return result


@pytest.mark.parametrize("look", LOOKS)
async def test_every_screen_is_accessible_silent_and_asks_nobody_else(
    world: World, browser: Browser, look: str
) -> None:
    context = await signed_in(world, browser, **LOOKS[look])
    page = await context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    found: dict[str, Any] = {}
    for name, path in world.paths.items():
        await page.goto(f"{world.replica.url}/ui{path}", wait_until="load")
        if faults := await violations(context, page):
            found[name] = faults
        width = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        beside = await page.evaluate("document.querySelector('.page')?.getBoundingClientRect().top ?? 0")
        if look != "phone" and beside > 0:
            found[f"{name} is not beside the navigation"] = beside
        if width > 0:
            found[f"{name} is too wide"] = width
    await context.close()
    assert not found, json.dumps(found, indent=1)
    # a page that is not there is said to be not there
    assert [text for text in said if "404" not in text and "422" not in text] == []
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(world.replica.url).netloc}


@pytest.mark.parametrize("path", ["/queues/mail", "/sources/orders"])
async def test_a_keyboard_alone_pauses_and_resumes(world: World, browser: Browser, path: str) -> None:
    context = await signed_in(world, browser)
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui{path}")
    for button, paused in (("Pause", True), ("Resume", False)):
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.textContent") == button:
                break
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "the focus can be seen"
        async with page.expect_navigation():
            await page.keyboard.press("Enter")
        assert (await world.operator.api("GET", path))["paused"] is paused
    await context.close()


async def test_without_javascript_a_task_is_found_and_retried(world: World, browser: Browser) -> None:
    context = await signed_in(world, browser, java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui")
    await page.get_by_role("link", name="Tasks", exact=True).click()
    await page.get_by_role("heading", name="Filter").click()
    await page.get_by_label("State").select_option("dead")
    await page.get_by_label("Queue").fill("mail")
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("row").nth(1).get_by_role("link").first.click()
    await page.get_by_role("button", name="Retry").click()
    assert "Ready again" in await page.inner_text("[role=status]")
    assert (await world.operator.api("GET", f"/tasks/{world.dead}"))["state"] == "ready"
    await context.close()


async def test_without_javascript_a_source_is_found_from_its_queue_paused_and_resumed(
    world: World, browser: Browser
) -> None:
    context = await signed_in(world, browser, java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui/queues/mail")
    await page.get_by_role("link", name="orders", exact=True).click()
    for button, said, paused in (("Pause", "No further message", True), ("Resume", "received again", False)):
        await page.get_by_role("button", name=button, exact=True).click()
        assert said in await page.inner_text("[role=status]")
        assert (await world.operator.api("GET", "/sources/orders"))["paused"] is paused
    await page.get_by_role("link", name="Sources", exact=True).first.click()
    assert await page.get_by_role("row").count() == 3
    await context.close()


async def test_an_open_source_shows_that_it_fails_although_no_task_changes(world: World, browser: Browser) -> None:
    one = Visitor(world.replica)
    one.key = await key_of(world.replica, "manage", "quiet")
    await one.api("PUT", "/queues/q", "{}")
    await one.api("PUT", "/sources/orders", json.dumps(fake_sources.definition("q")))
    context = await signed_in(world, browser, one.key)
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.goto(f"{world.replica.url}/ui/sources/orders")
    for _ in range(3):  # the first event of a stream is followed by two renewals
        async with page.expect_response("**/ui/sources/orders", timeout=30_000):
            pass
    for fails, shown in ((SourceError("the shop is closed"), "failing"), (None, "receiving")):
        world.elsewhere.fails = fails
        await page.get_by_text(shown, exact=True).wait_for(timeout=30_000)
    assert "the shop is closed" in await page.inner_text(".warning")
    assert said == []
    await context.close()


async def test_a_payload_is_shown_and_copied_as_its_bytes(world: World, browser: Browser) -> None:
    payload = '{"html": "<b>&amp;</b></pre><script>document.title=1</script>", "id": 12345678901234567890}'
    task = (await world.operator.api("POST", "/queues/mail/tasks", f'{{"payload": {payload}}}'))["id"]
    context = await signed_in(world, browser)
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui/tasks/{task}")
    assert await page.locator("#payload").text_content() == payload
    await page.get_by_role("button", name="Copy").click()
    await page.get_by_role("button", name="Copied").wait_for()
    assert await page.evaluate("navigator.clipboard.readText()") == payload
    assert await page.title() != "1"
    await context.close()


async def test_charts_are_drawn(world: World, browser: Browser) -> None:
    context = await signed_in(world, browser)
    page = await context.new_page()
    await page.goto(f"{world.replica.url}/ui/queues/mail")
    await page.locator(".chart canvas").nth(2).wait_for()
    assert await page.locator(".chart canvas").count() == 3
    await context.close()


async def test_the_overview_follows_what_happens_more_than_once(world: World, browser: Browser) -> None:
    context = await signed_in(world, browser)
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.goto(f"{world.replica.url}/ui")
    await world.operator.api("PUT", "/queues/live", "{}")
    for count in (1, 2):
        await world.operator.api("POST", "/queues/live/tasks", '{"payload": 1}')
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="live", exact=True))
        await row.get_by_role("cell").nth(2).get_by_text(str(count), exact=True).wait_for(timeout=15_000)
    assert said == []
    shown = await page.inner_text("#main")
    # what is not the page, such as the login once the session has ended, does not take its place
    await page.route("**/ui", lambda route: route.fulfill(body="<main>Sign in</main>", content_type="text/html"))
    async with page.expect_response("**/ui"):
        await world.operator.api("POST", "/queues/live/tasks", '{"payload": 1}')
    await page.wait_for_function("!document.querySelector('.htmx-request')")
    assert await page.inner_text("#main") == shown
    await context.close()
