"""What the screens show and do, over HTTP, as forms and links."""

import re

import pytest

from tests.sluices import Replica
from tests.support import poll
from tests.ui.visitors import Visitor, visitor
from tests.wire.api import fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

HOSTILE = '{"html": "</pre><script>alert(1)</script>", "id": 12345678901234567890, "float": 1.10}'


@pytest.fixture
async def operator(guarded: Replica) -> Visitor:
    return await visitor(guarded)


async def queue_with(one: Visitor, *payloads: str) -> tuple[str, list[str]]:
    """A queue with these tasks; its name, and their ids."""
    name = fresh("q")
    await one.api("PUT", f"/queues/{name}", "{}")
    made = [await one.api("POST", f"/queues/{name}/tasks", f'{{"payload": {payload}}}') for payload in payloads]
    return name, [task["id"] for task in made]


async def test_a_payload_is_shown_as_its_bytes(operator: Visitor) -> None:
    _, [task] = await queue_with(operator, HOSTILE)
    page = (await operator.get(f"/ui/tasks/{task}")).text
    shown = re.search('<pre id="payload"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert shown is not None
    assert shown[1] == HOSTILE.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    assert "<script>alert" not in page


async def test_markup_in_texts_of_others_is_shown_as_text(operator: Visitor) -> None:
    markup = "</pre><b id=x>'\\\"&amp;"
    name, handler = fresh("q"), fresh("h")
    await operator.api("PUT", f"/handlers/{handler}", f'{{"url": "http://127.0.0.1:9/x", "description": "{markup}"}}')
    await operator.api("PUT", f"/queues/{name}", f'{{"description": "{markup}"}}')
    labels = f'"type": "{markup}", "tags": ["{markup}"], "correlation_id": "{markup}", "unique_key": "{markup}"'
    task = (await operator.api("POST", f"/queues/{name}/tasks", f'{{"payload": "{markup}", {labels}}}'))["id"]
    [lease] = (await operator.api("POST", f"/queues/{name}/leases"))["tasks"]
    headers = {"sluice-lease-token": lease["lease_token"], "content-type": "application/json"}
    failed = f'{{"error": "{markup}", "retryable": false}}'
    assert (await operator.client.post(f"/tasks/{task}/fail", headers=headers, content=failed)).is_success
    await operator.api("POST", "/keys", f'{{"description": "{markup}"}}')
    started = f'{{"kind": "cancel", "filter": {{"tag": "{markup}"}}, "reason": "{markup}"}}'
    action = (await operator.api("POST", "/actions", started))["id"]
    for path in (f"/queues/{name}", f"/tasks/{task}", "/tasks", f"/handlers/{handler}", "/keys", f"/actions/{action}"):
        page = (await operator.get(f"/ui{path}")).text
        assert "&lt;b id=x&gt;" in page and "<b id=x>" not in page, path
    for query in ("tasks?type=", "audit?name=", "login?next=/", "actions/new?kind=retry&tag="):
        assert "<b id=x>" not in (await operator.get(f"/ui/{query}%3Cb%20id=x%3E")).text, query


async def test_a_task_is_found_by_its_id_and_by_the_end_that_pages_show(operator: Visitor) -> None:
    queue, tasks = await queue_with(operator, "1", "2")
    for task in tasks:
        shown = re.search(f'title="{task}">(…[0-9a-f]+)</a>', (await operator.get(f"/ui/tasks?queue={queue}")).text)
        assert shown is not None and shown[1] == f"…{task[-12:]}"
        for given in (task, task.upper(), shown[1], task[-12:]):
            assert (await operator.get(f"/ui/find?id={given}")).headers["location"] == f"/ui/tasks/{task}"
    assert (await operator.get("/ui/find?id=")).headers["location"] == "/ui/tasks"
    for given in ("0" * 12, tasks[0][-4:], "%00"):
        assert (await operator.get(f"/ui/find?id={given}")).status_code == 404


async def test_a_queue_is_paused_resumed_purged_and_its_dead_are_redriven_by_forms(operator: Visitor) -> None:
    name, tasks = await queue_with(operator, "1", "2", "3")
    page = f"/ui/queues/{name}"
    token = await operator.token(page)
    assert (await operator.post(f"{page}/pause", {"token": token})).headers["location"] == f"{page}?notice=queue-paused"
    assert (await operator.api("GET", f"/queues/{name}"))["paused"] is True
    assert "Paused. Tasks are accepted" in (await operator.get(f"{page}?notice=queue-paused")).text
    await operator.post(f"{page}/resume", {"token": token})
    assert (await operator.api("GET", f"/queues/{name}"))["paused"] is False
    asked = (await operator.get(f"{page}/purge")).text
    assert "3 waiting tasks" in asked
    assert (await operator.api("GET", f"/queues/{name}/stats"))["counts"]["ready"] == 3
    purged = await operator.post(f"{page}/purge", {"token": token})
    action = (await operator.get(purged.headers["location"])).text
    assert "Started. It goes on by itself" in action and "purge" in action

    async def cancelled() -> bool:
        return (await operator.api("GET", f"/queues/{name}/stats"))["counts"]["cancelled"] == 3

    await poll(cancelled)
    retried = await operator.post(f"/ui/tasks/{tasks[0]}/retry", {"token": token})
    assert retried.status_code == 303
    assert (await operator.api("GET", f"/tasks/{tasks[0]}"))["state"] == "ready"
    assert "one ready task" in (await operator.get(f"/ui/tasks/{tasks[0]}/cancel")).text
    await operator.post(f"/ui/tasks/{tasks[0]}/cancel", {"token": token})
    assert (await operator.api("GET", f"/tasks/{tasks[0]}"))["state"] == "cancelled"


async def test_every_filter_of_the_list_of_tasks_is_in_the_address(operator: Visitor) -> None:
    name, tasks = await queue_with(operator, "1", "2")
    parameters = {
        parameter["name"]
        for parameter in (await operator.api("GET", "/openapi.json"))["paths"]["/tasks"]["get"]["parameters"]
    }
    form = (await operator.get("/ui/tasks")).text
    fields = set(re.findall('<(?:input|select)[^>]* name="([a-z_]+)"', form)) - {"id", "token"}
    assert fields == parameters - {"include", "limit", "cursor"}
    found = (await operator.get(f"/ui/tasks?queue={name}&state=ready&type=")).text
    assert all(f"/ui/tasks/{task}" in found for task in tasks)
    assert "No task matches" in (await operator.get(f"/ui/tasks?queue={name}&state=dead")).text


async def test_a_filter_that_cannot_be_read_is_marked_and_asks_the_database_nothing(operator: Visitor) -> None:
    for query in ("state=lost", "batch=7", "queue=%00", "ended_from=yesterday", "tag=" + "x" * 300):
        found = await operator.get(f"/ui/tasks?{query}")
        assert found.status_code == 422, query
        assert 'class="error" id="fault-' in found.text or "state" in query


async def test_what_no_link_and_no_form_would_send_is_refused_or_ignored(operator: Visitor) -> None:
    queue, _ = await queue_with(operator)
    schedule = fresh("s")
    await operator.api("PUT", f"/schedules/{schedule}", f'{{"queue": "{queue}", "cron": "0 3 * * *", "payload": 1}}')
    for path in (
        "?notice=purged&n=%C2%B2",
        "?notice=purged&n=-1",
        "/queues?cursor=%FF",
        "/audit?name=%00",
        "/tasks?ended_from=0001-01-01T00:00:00Z",
        f"/schedules/{schedule}/backfill?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z",
    ):
        assert (await operator.get(f"/ui{path}")).status_code in (200, 422), path
    form = {"token": await operator.token("/ui"), "scope": "read"}
    for field, text in (("description", "a\0b"), ("queues", "\0"), ("expires_at", "9999-12-31T23:59:59.999999Z")):
        assert (await operator.post("/ui/keys", form | {field: text})).status_code in (400, 422), field


async def test_long_lists_are_pages_of_fifty(operator: Visitor) -> None:
    name, _ = await queue_with(operator)
    tasks = ", ".join(['{"payload": 1}'] * 60)
    await operator.api("POST", f"/queues/{name}/tasks/bulk", f'{{"tasks": [{tasks}]}}')
    first = (await operator.get(f"/ui/tasks?queue={name}")).text
    assert first.count('<th scope="row">') == 50
    following = re.search('<a href="([^"]+)" rel="next">', first)
    assert following is not None
    second = (await operator.get(following[1].replace("&amp;", "&"))).text
    assert second.count('<th scope="row">') == 10


BUTTONS = (("pause", "manage"), ("purge", "manage"), ("cancel", "use"))


@pytest.mark.parametrize("scope", ["read", "use", "manage"])
async def test_a_key_sees_no_button_that_its_scope_refuses_and_is_refused_when_it_posts_anyway(
    guarded: Replica, operator: Visitor, scope: str
) -> None:
    name, [task] = await queue_with(operator, "1")
    one = await visitor(guarded, scope)
    seen = (await one.get(f"/ui/queues/{name}")).text + (await one.get(f"/ui/tasks/{task}")).text
    token = await one.token("/ui")
    for verb, needs in BUTTONS:
        path = f"/ui/tasks/{task}/{verb}" if verb == "cancel" else f"/ui/queues/{name}/{verb}"
        allowed = ("read", "use", "manage").index(scope) >= ("read", "use", "manage").index(needs)
        assert (f'"{path}"' in seen) == allowed, verb
        if not allowed:
            assert (await one.post(path, {"token": token})).status_code == 403
    assert (await operator.api("GET", f"/queues/{name}"))["paused"] is False


async def test_an_alarm_leads_to_its_runbook_and_no_further(operator: Visitor) -> None:
    name, _ = await queue_with(operator, "1")
    await operator.api("POST", f"/queues/{name}/pause")

    async def alarmed() -> bool:
        return (
            f'/ui/queues/{name}">{name}</a> · <a href="/ui/docs/runbooks/queue-paused-with-work"'
            in (await operator.get("/ui")).text
        )

    await poll(alarmed)
    runbook = await operator.get("/ui/docs/runbooks/queue-paused-with-work")
    assert runbook.status_code == 200 and "/queues/$QUEUE" in runbook.text
    for path in ("runbooks/none", "decisions/0001-rooms-and-arrows", "..%2f..%2fapp/main", "runbooks/..%2fREADME"):
        assert (await operator.get(f"/ui/docs/{path}")).status_code == 404, path


async def test_a_queue_in_a_list_shows_what_was_enqueued_in_the_last_hour(guarded: Replica, operator: Visitor) -> None:
    name, _ = await queue_with(operator)
    other, _ = await queue_with(operator)
    await guarded.sluice.core.db.fetch(
        "insert into sluice.queue_minutes (queue_id, minute, enqueued)"
        " select id, date_trunc('minute', clock_timestamp()) - make_interval(mins => n), 100 * n from sluice.queues,"
        " generate_series(1, 61) n where name = $1",
        name,
    )
    for path in ("/ui/queues", "/ui/queues?cursor="):
        rows = (await operator.get(path)).text.split("<tr>")
        [row] = [row for row in rows if f'/ui/queues/{name}"' in row]
        assert "189,000 enqueued in 60 min, at most 6,100 in one" in row
        [row] = [row for row in rows if f'/ui/queues/{other}"' in row]
        assert '<svg class="spark"' not in row


async def test_what_is_not_there_is_a_page_that_says_so(operator: Visitor) -> None:
    for path in (
        "/ui/queues/none",
        "/ui/queues/%00",
        "/ui/tasks/7",
        f"/ui/tasks/{'0' * 8}-0000-7000-8000-000000000000",
        "/ui/x",
    ):
        found = await operator.get(path)
        assert found.status_code == 404, path
        assert found.headers["content-type"] == "text/html; charset=utf-8"


async def test_another_tenants_queues_and_tasks_do_not_exist(guarded: Replica, operator: Visitor) -> None:
    name, [task] = await queue_with(operator, "1")
    other = await visitor(guarded, "operate", tenant="other")
    for path in (f"/ui/queues/{name}", f"/ui/tasks/{task}", f"/ui/queues/{name}/purge"):
        assert (await other.get(path)).status_code == 404, path
    assert name not in (await other.get("/ui")).text + (await other.get("/ui/queues")).text


SCREENS = (
    "",
    "/queues",
    "/tasks",
    "/batches",
    "/schedules",
    "/handlers",
    "/limits",
    "/replicas",
    "/actions",
    "/audit",
    "/keys",
)
FULL = ("/replicas", "/audit", "/keys")


async def test_each_screen_without_content_says_what_to_do_next(guarded: Replica) -> None:
    empty = await visitor(guarded, "operate", tenant=fresh("t"))
    for path in SCREENS:
        found = await empty.get(f"/ui{path}")
        assert found.status_code == 200, path
        assert path in FULL or '<div class="empty">' in found.text, path


async def test_a_schedule_a_batch_and_a_handler_are_shown_and_operated_by_forms(operator: Visitor) -> None:
    queue, _ = await queue_with(operator)
    handler, schedule = fresh("h"), fresh("s")
    await operator.api("PUT", f"/handlers/{handler}", '{"url": "http://127.0.0.1:9/x"}')
    await operator.api("PUT", f"/schedules/{schedule}", f'{{"queue": "{queue}", "cron": "0 3 * * *", "payload": 1}}')
    batch = (await operator.api("POST", "/batches", f'{{"queue": "{queue}", "tasks": [{{"payload": 1}}]}}'))["id"]
    token = await operator.token("/ui")
    assert "03:00" in (await operator.get(f"/ui/schedules/{schedule}")).text
    for path, verb in ((f"/ui/schedules/{schedule}", "pause"), (f"/ui/schedules/{schedule}", "trigger"),
                       (f"/ui/handlers/{handler}", "disable"), (f"/ui/batches/{batch}", "cancel")):  # fmt: skip
        assert (await operator.post(f"{path}/{verb}", {"token": token})).status_code == 303, verb
        assert (await operator.get(path)).status_code == 200
    assert (await operator.api("GET", f"/schedules/{schedule}"))["paused"] is True
    assert (await operator.api("GET", f"/handlers/{handler}"))["enabled"] is False
    assert (await operator.api("GET", f"/batches/{batch}"))["counts"]["cancelled"] == 1
    tested = (await operator.post(f"/ui/handlers/{handler}/test", {"token": token})).text
    assert "sluice-queue" in tested
    form = await operator.form(f"/ui/handlers/{handler}/rotate")
    rotated = (await operator.post(f"/ui/handlers/{handler}/rotate", form)).text
    assert re.search("whsec_[A-Za-z0-9+/=]+", rotated)
    window = "from=2026-01-01T00:00:00Z&to=2026-01-04T00:00:00Z"
    assert "3 nominal times" in (await operator.get(f"/ui/schedules/{schedule}/backfill?{window}")).text


async def test_a_handler_of_many_queues_is_listed_with_a_few_of_them(operator: Visitor) -> None:
    handler = fresh("h")
    await operator.api("PUT", f"/handlers/{handler}", '{"url": "http://127.0.0.1:9/x"}')
    for number in range(7):
        await operator.api("PUT", f"/queues/{handler}-{number}", f'{{"handler": "{handler}"}}')

    async def listed() -> str | None:
        page = (await operator.get("/ui/handlers")).text
        return page if f"/ui/queues/{handler}-0" in page and "and 2 more" in page else None

    page = await poll(listed)  # what the overview knows is up to two seconds old
    assert f"/ui/queues/{handler}-4" in page and f"/ui/queues/{handler}-5" not in page
    assert f"/ui/queues/{handler}-6" in (await operator.get(f"/ui/handlers/{handler}")).text


async def test_a_key_confined_to_queues_sees_only_those(guarded: Replica, operator: Visitor) -> None:
    name, _ = await queue_with(operator, "1")
    other, [task] = await queue_with(operator, "1")
    one = Visitor(guarded)
    issued = await operator.api("POST", "/keys", f'{{"scope": "manage", "queues": ["{name}"]}}')
    assert (await one.sign_in(issued["token"])).status_code == 303
    for path in ("", "/queues", "/tasks", "/batches", "/schedules", "/handlers"):
        found = await one.get(f"/ui{path}")
        assert found.status_code == 200, path
        assert other not in found.text, path
    assert "/ui/limits" not in (await one.get("/ui")).text
    assert (await one.get(f"/ui/queues/{other}")).status_code == 404
    assert (await one.get(f"/ui/tasks/{task}")).status_code == 404


async def test_all_that_match_are_counted_first_and_then_acted_on(operator: Visitor) -> None:
    name, tasks = await queue_with(operator, "1", "2", "3")
    listed = (await operator.get(f"/ui/tasks?queue={name}")).text
    assert f"/ui/actions/new?kind=cancel&amp;queue={name}" in listed
    asked = (await operator.get(f"/ui/actions/new?kind=cancel&queue={name}")).text
    assert "<b>3 tasks</b>" in asked
    assert (await operator.api("GET", f"/tasks/{tasks[0]}"))["state"] == "ready"
    form = {"token": await operator.token("/ui"), "kind": "cancel", "queue": name, "note": "a mistake"}
    started = await operator.post("/ui/actions", form)
    assert started.status_code == 303

    async def ended() -> bool:
        return (await operator.api("GET", f"/tasks/{tasks[0]}"))["state"] == "cancelled"

    await poll(ended)
    assert "a mistake" in (await operator.get(started.headers["location"])).text
    assert (await operator.post("/ui/actions", form | {"queue": ""})).status_code == 422


async def test_a_key_is_made_rotated_and_revoked_on_the_page_and_the_audit_says_by_whom(
    guarded: Replica, operator: Visitor
) -> None:
    form = await operator.form("/ui/keys")
    token = form["token"]
    del form["payloads"]  # not checked
    given = form | {"scope": "read", "queues": "mail, billing-*", "description": "for the dashboard"}
    made = await operator.post("/ui/keys", given)
    found = re.search(r"slk_([0-9a-zA-Z]+)_[0-9a-zA-Z]+", made.text)
    assert found is not None
    shown = await operator.api("GET", f"/keys/{found[1]}")
    assert (shown["scope"], shown["queues"], shown["payloads"]) == ("read", ["mail", "billing-*"], False)
    assert found[0] not in (await operator.get("/ui/keys")).text
    rotated = await operator.post(f"/ui/keys/{found[1]}/rotate", await operator.form(f"/ui/keys/{found[1]}/rotate"))
    assert found[1] in rotated.text
    assert found[0] not in rotated.text
    assert (await operator.post(f"/ui/keys/{found[1]}/revoke", {"token": token})).status_code == 303
    assert (await operator.api("GET", f"/keys/{found[1]}"))["revoked_at"]
    audit = (await operator.get(f"/ui/audit?noun=key&name={found[1]}")).text
    assert operator.key.split("_")[1] in audit
    assert all(f"<b>{verb}</b> key {found[1]}" in audit for verb in ("create", "rotate", "revoke"))
    assert (await operator.post("/ui/keys", given | {"scope": "root"})).status_code == 422
    reader = await visitor(guarded, "use")
    assert (await reader.get("/ui/keys")).status_code == 403
    assert 'href="/ui/keys"' not in (await reader.get("/ui")).text
