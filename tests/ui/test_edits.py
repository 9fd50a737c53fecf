"""Editing queues and tasks, enqueueing copies, and forms that are sent twice."""

import asyncio
import json
import re
from html import unescape

import pytest

from tests.sluices import Replica
from tests.support import poll
from tests.ui.visitors import Visitor, visitor
from tests.wire.api import fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

PAYLOAD = '{"id": 12345678901234567890, "price": 1.10}'


@pytest.fixture
async def operator(guarded: Replica) -> Visitor:
    return await visitor(guarded)


async def queue(one: Visitor, definition: str = "{}") -> str:
    name = fresh("q")
    await one.api("PUT", f"/queues/{name}", definition)
    return name


async def test_a_queue_is_edited_by_fields_and_the_rest_stays_as_it_is(operator: Visitor) -> None:
    schema = '{"type": "object", "maxProperties": 12345678901234567890}'
    name = await queue(
        operator, f'{{"max_concurrency": 4, "payload_schema": {schema}, "retry": {{"max_attempts": 7}}}}'
    )
    page = f"/ui/queues/{name}/edit"
    form = await operator.form(page)
    assert (form["max_concurrency"], form["max_attempts"], form["max_depth"]) == ("4", "7", "")
    changes = {"max_concurrency": "", "max_depth": "100", "rate_limit": "2.5", "dead_days": "9"}
    saved = await operator.post(page, form | changes)
    assert saved.headers["location"] == f"/ui/queues/{name}?notice=queue-saved"
    found = await operator.api("GET", f"/queues/{name}")
    assert (found["max_concurrency"], found["max_depth"], found["retention"]["dead_days"]) == (None, 100, 9)
    assert found["rate"]["limit"] == 2.5 and found["retry"]["max_attempts"] == 7
    assert found["payload_schema"]["maxProperties"] == 12345678901234567890
    await operator.post(page, (await operator.form(page)) | {"rate_limit": "", "rate_period": ""})
    assert (await operator.api("GET", f"/queues/{name}"))["rate"] is None


async def test_a_queue_that_somebody_else_has_changed_shows_both_and_keeps_theirs(operator: Visitor) -> None:
    name = await queue(operator, '{"max_concurrency": 4}')
    page = f"/ui/queues/{name}/edit"
    form = await operator.form(page)
    await operator.api("PUT", f"/queues/{name}", '{"max_concurrency": 5, "description": "theirs"}')
    refused = await operator.post(page, form | {"max_concurrency": "6"})
    assert refused.status_code == 412
    assert "<td>4</td><td>5</td><td>6</td>" in refused.text.replace("\n", "")
    assert "theirs" in refused.text
    assert (await operator.api("GET", f"/queues/{name}"))["max_concurrency"] == 5
    again = (await operator.form(page)) | {"max_concurrency": "6"}
    assert (await operator.post(page, again)).status_code == 303
    found = await operator.api("GET", f"/queues/{name}")
    assert (found["max_concurrency"], found["description"]) == (6, "theirs")


async def test_a_queue_is_edited_as_json(operator: Visitor) -> None:
    name = await queue(operator, '{"max_concurrency": 4}')
    page = f"/ui/queues/{name}/edit"
    form = await operator.form(f"{page}?as=json")
    definition = json.loads(form["json"])
    for wrong in ("{", "[1]", '{"max_concurency": 3}', '{"max_concurrency": "many"}'):
        refused = await operator.post(page, form | {"json": wrong})
        assert refused.status_code == 422, wrong
    assert "max_concurency" in (await operator.post(page, form | {"json": '{"max_concurency": 3}'})).text
    await operator.post(page, form | {"json": json.dumps(definition | {"max_concurrency": 3, "encrypt": False})})
    assert (await operator.api("GET", f"/queues/{name}"))["max_concurrency"] == 3
    refused = await operator.post(page, form | {"json": json.dumps(definition | {"max_depth": 9})})
    assert refused.status_code == 412 and "<td>3</td><td>4</td>" in refused.text.replace("\n", "")


async def test_what_is_wrong_with_an_edit_stands_beside_its_field_and_changes_nothing(operator: Visitor) -> None:
    name = await queue(operator, '{"max_concurrency": 4}')
    page = f"/ui/queues/{name}/edit"
    form = await operator.form(page)
    wrong = {"max_concurrency": "0", "max_attempts": "many", "max_depth": "1e999", "handler": "none", "dead_days": "-1"}
    for field, text in wrong.items():
        refused = await operator.post(page, form | {field: text})
        assert refused.status_code == 422, field
        assert f'id="fault-{field}"' in refused.text, field
    for field, text in (("max_depth", "9" * 400), ("rate_limit", "9" * 400), ("max_attempts", "9" * 5000)):
        assert f'id="fault-{field}"' in (await operator.post(page, form | {field: text})).text, field
    for broken in ({"was": "{"}, {"was": "[1]"}):
        assert (await operator.post(page, form | broken)).status_code == 400
    assert (await operator.post(page, form | {"etag": "x", "max_concurrency": "9"})).status_code == 412
    assert (await operator.api("GET", f"/queues/{name}"))["max_concurrency"] == 4


async def test_a_task_is_edited_and_only_what_was_changed_is_saved(operator: Visitor) -> None:
    name = await queue(operator)
    body = f'{{"payload": {PAYLOAD}, "type": "letter", "tags": ["a", "b"], "headers": {{"x-a": "1", "x-b": "2"}}}}'
    task = (await operator.api("POST", f"/queues/{name}/tasks", body))["id"]
    page = f"/ui/tasks/{task}/edit"
    form = await operator.form(page)
    assert form["payload"] == PAYLOAD
    # meanwhile somebody else changes another field
    await operator.api("PATCH", f"/tasks/{task}", '{"correlation_id": "theirs"}')
    changes = {"priority": "5", "tags": "b\r\nc", "headers": "x-a: 3", "max_attempts": "2"}
    assert (await operator.post(page, form | changes)).headers["location"] == f"/ui/tasks/{task}?notice=task-saved"
    found = await operator.api("GET", f"/tasks/{task}")
    assert (found["priority"], found["tags"], found["headers"]) == (5, ["b", "c"], {"x-a": "3"})
    assert (found["correlation_id"], found["type"], found["max_attempts"]) == ("theirs", "letter", 2)
    new = '{"id": 98765432109876543210, "price": 2.50}'
    await operator.post(page, (await operator.form(page)) | {"payload": new})
    assert f'"payload":{new}' in (await operator.client.get(
        f"{operator.url}/tasks/{task}", headers={"authorization": f"Bearer {operator.key}"})).text  # fmt: skip
    collides = await operator.post(page, form | {"priority": "7"})
    assert collides.status_code == 412 and "<td>0</td><td>5</td><td>7</td>" in collides.text.replace("\n", "")
    for wrong in ({"payload": "{"}, {"payload": '1, "priority": 9'}, {"run_at": "soon"}, {"max_attempts": ""}):
        assert (await operator.post(page, (await operator.form(page)) | wrong)).status_code == 422, wrong
    assert (await operator.api("GET", f"/tasks/{task}"))["priority"] == 5


async def test_a_copy_of_a_task_is_enqueued_once_however_often_its_form_is_sent(operator: Visitor) -> None:
    name, other = await queue(operator), await queue(operator)
    body = f'{{"payload": {PAYLOAD}, "type": "letter", "tags": ["a"], "unique_key": "u", "target": null}}'
    task = (await operator.api("POST", f"/queues/{name}/tasks", body))["id"]
    page = f"/ui/tasks/{task}/copy"
    form = await operator.form(page) | {"queue": other}
    twice = await asyncio.gather(*(operator.post(page, form) for _ in range(2)))
    assert len({answer.headers["location"] for answer in twice}) == 1
    [copied] = (await operator.api("GET", f"/tasks?queue={other}&include=payload"))["items"]
    assert (copied["type"], copied["tags"], copied["unique_key"]) == ("letter", ["a"], None)
    assert copied["payload"] == {"id": 12345678901234567890, "price": 1.10}
    changed = await operator.post(page, form | {"type": "postcard"})
    assert changed.status_code == 303
    assert (await operator.post(page, form | {"queue": "none"})).status_code == 422
    assert len((await operator.api("GET", f"/tasks?queue={other}"))["items"]) == 2


async def test_a_form_that_starts_an_action_and_is_sent_twice_starts_one(operator: Visitor) -> None:
    name = await queue(operator)
    await operator.api("POST", f"/queues/{name}/tasks", '{"payload": 1}')
    for path, target in (
        (f"/ui/queues/{name}/purge", None),
        (f"/ui/actions/new?kind=retry&queue={name}", "/ui/actions"),
    ):
        form = await operator.form(path)
        twice = [await operator.post(target or path, form) for _ in range(2)]
        assert len({answer.headers["location"] for answer in twice}) == 1, path


async def test_an_action_can_be_started_although_none_of_the_tasks_looked_at_so_far_matches(
    operator: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await queue(operator)
    for tag in ("a", "a", "b"):
        await operator.api("POST", f"/queues/{name}/tasks", f'{{"payload": 1, "tags": ["{tag}"]}}')
    monkeypatch.setattr("app.ui.screens.actions.COUNT_SECONDS", -1.0)
    monkeypatch.setattr("app.runtime.acting.FIRST_WINDOW", 2)
    path = f"/ui/actions/new?kind=cancel&queue={name}&tag=b"
    assert "No task matches" not in (await operator.get(path)).text
    started = await operator.post("/ui/actions", await operator.form(path))
    assert started.status_code == 303


async def test_a_payload_of_bytes_is_copied_as_it_is(operator: Visitor) -> None:
    name = await queue(operator)
    body = '{"payload_base64": "AAH/", "content_type": "image/png"}'
    task = (await operator.api("POST", f"/queues/{name}/tasks", body))["id"]
    form = await operator.form(f"/ui/tasks/{task}/copy")
    assert "payload" not in form
    made = (await operator.post(f"/ui/tasks/{task}/copy", form)).headers["location"]
    copied = await operator.api("GET", f"/tasks/{made.split('/')[-1].split('?')[0]}")
    assert (copied["payload_base64"], copied["content_type"]) == ("AAH/", "image/png")


async def test_the_tree_of_follow_ups_stands_on_the_page_of_each_of_its_tasks(operator: Visitor) -> None:
    name = await queue(operator)
    root = (await operator.api("POST", f"/queues/{name}/tasks", '{"payload": 1}'))["id"]
    for depth in (1, 2):
        [lease] = (await operator.api("POST", f"/queues/{name}/leases"))["tasks"]
        tasks = ", ".join(
            f'{{"queue": "{name}", "idempotency_key": "{depth}-{n}", "payload": 1, "type": "d{depth}"}}' for n in (1, 2)
        )
        headers = {"sluice-lease-token": lease["lease_token"], "content-type": "application/json"}
        done = await operator.client.post(
            f"/tasks/{lease['id']}/complete", headers=headers, content=f'{{"tasks": [{tasks}]}}'
        )
        assert done.is_success, done.text
    listed = (await operator.api("GET", f"/tasks?queue={name}"))["items"]
    assert len(listed) == 5
    parent = next(task["parent"] for task in listed if task["type"] == "d2")
    for shown in listed:
        page = (await operator.get(f"/ui/tasks/{shown['id']}")).text
        tree = page.split('<ul class="tree">')[1].split("</section>")[0]
        assert tree.count(f'href="/ui/tasks/{root}"') == 1
        if shown["id"] in (root, parent):
            assert all(f'href="/ui/tasks/{task["id"]}"' in tree for task in listed if task["type"] == "d2")
        assert tree.count("<ul>") == tree.count("</ul>") - 1 and tree.count("<li>") == tree.count("</li>")


async def test_a_form_that_rotates_or_makes_a_key_and_is_sent_twice_does_so_once(operator: Visitor) -> None:
    handler = fresh("h")
    await operator.api("PUT", f"/handlers/{handler}", '{"url": "http://127.0.0.1:9/x"}')
    page = f"/ui/handlers/{handler}/rotate"
    form = await operator.form(page)
    twice = [await operator.post(page, form), await operator.post(page, form)]
    assert all(form["made"] in answer.text.replace("&#43;", "+") for answer in twice)
    audit = (await operator.api("GET", f"/audit?noun=handler&name={handler}&verb=rotate"))["items"]
    assert [bool(row["after"]) for row in audit] == [False, True]  # the second found it done
    sent = (await operator.api("POST", f"/handlers/{handler}/test"))["sent"]
    assert len(set(sent["headers"]["webhook-signature"].split())) == 2, "the secret before the form still signs"

    before = len((await operator.api("GET", "/keys?limit=200"))["items"])
    form = await operator.form("/ui/keys") | {"scope": "read"}
    twice = [await operator.post("/ui/keys", form), await operator.post("/ui/keys", form)]
    assert all(form["made"] in answer.text for answer in twice)
    assert len((await operator.api("GET", "/keys?limit=200"))["items"]) == before + 1
    first, key = form["made"], form["made"].split("_")[1]
    page = f"/ui/keys/{key}/rotate"
    form = await operator.form(page)
    twice = [await operator.post(page, form), await operator.post(page, form)]
    assert all(form["made"] in answer.text for answer in twice)
    assert (await operator.post(page, form | {"made": "slk_x"})).status_code == 422
    for token in (form["made"], first):
        assert (await Visitor(operator.replica).sign_in(token)).status_code == 303


async def test_a_method_that_a_page_does_not_have_and_a_failure_are_pages(
    guarded: Replica, operator: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await operator.get("/ui/")).headers["location"] == "/ui"
    token = await operator.token("/ui")
    for path, allowed in (("/ui/queues", "GET, HEAD"), ("/ui", "GET, HEAD")):
        refused = await operator.post(path, {"token": token})
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert refused.headers["content-type"].startswith("text/html")
    refused = await operator.get("/ui/queues/x/pause")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    cookie = "; ".join(f"{name}={value}" for name, value in operator.cookies.items())
    untyped = await operator.client.post(
        f"{operator.url}/ui/queues/x/pause", headers={"cookie": cookie}, content=b"token=1"
    )
    assert untyped.status_code == 415 and "application/json" not in untyped.text

    def broken(*_args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(guarded.sluice.core.looks, "at", broken)
    failed = await operator.get("/ui")
    assert failed.status_code == 500
    assert failed.headers["content-type"].startswith("text/html") and "broken" not in failed.text


async def test_what_holds_a_queue_back_and_who_has_it_is_shown(operator: Visitor) -> None:
    limit = fresh("l")
    await operator.api("PUT", f"/limits/{limit}", '{"max_concurrency": 2, "description": "One crane"}')
    name = await queue(operator, f'{{"limits": ["{limit}"], "max_concurrency": 3}}')
    await operator.api("POST", f"/queues/{name}/tasks", '{"payload": 1}')
    [lease] = (await operator.api("POST", f"/queues/{name}/leases"))["tasks"]

    async def shown() -> str | None:
        page = (await operator.get(f"/ui/queues/{name}")).text
        limits = page.split('id="limits"')[1].split("</section>")[0]
        return limits if limits.count(f'href="/ui/tasks/{lease["id"]}"') == 2 else None

    limits = await poll(shown)
    assert f'href="/ui/limits/{limit}"' in limits
    page = (await operator.get(f"/ui/limits/{limit}")).text
    assert "One crane" in page and f'href="/ui/tasks/{lease["id"]}"' in page
    form = {"token": await operator.token("/ui")}
    paused = await operator.post(f"/ui/limits/{limit}/pause", form)
    assert paused.headers["location"] == f"/ui/limits/{limit}?notice=limit-paused"
    assert (await operator.get("/ui/limits/none")).status_code == 404


async def test_the_dead_with_one_error_are_redriven_together(operator: Visitor) -> None:
    name = await queue(operator)
    ids = []
    for error in ("paper jam 7", "paper jam 12", "no toner"):
        task = (await operator.api("POST", f"/queues/{name}/tasks", '{"payload": 1}'))["id"]
        [lease] = (await operator.api("POST", f"/queues/{name}/leases"))["tasks"]
        headers = {"sluice-lease-token": lease["lease_token"], "content-type": "application/json"}
        failed = f'{{"error": "{error}", "retryable": false}}'
        assert (await operator.client.post(f"/tasks/{task}/fail", headers=headers, content=failed)).is_success
        ids.append(task)
    page = (await operator.get(f"/ui/queues/{name}")).text
    [link] = [link for link in re.findall('href="([^"]*kind=redrive[^"]*)"', page) if "jam" in link]
    form = await operator.form(unescape(link))
    assert form["kind"] == "redrive" and "jam" in form["error"]
    assert (await operator.post("/ui/actions", form)).status_code == 303

    async def redriven() -> bool:
        states = [(await operator.api("GET", f"/tasks/{task}"))["state"] for task in ids]
        return states == ["ready", "ready", "dead"]

    await poll(redriven)


async def test_an_access_key_is_made_and_rotated_on_the_page_once_however_often_the_form_is_sent(
    operator: Visitor,
) -> None:
    form = await operator.form("/ui/keys") | {"kind": "aws", "scope": "use"}
    first, again = [(await operator.post("/ui/keys", form)).text for _ in range(2)]
    found = re.search(r"AWS_ACCESS_KEY_ID=(SLKA\w{16})\s+AWS_SECRET_ACCESS_KEY=(\w{40})<", first)
    assert found is not None and found[0] in again
    listed = (await operator.get("/ui/keys")).text
    assert found[1] in listed and found[2] not in listed
    path = f"/ui/keys/{found[1]}/rotate"
    form = await operator.form(path)
    rotated, repeated = [(await operator.post(path, form)).text for _ in range(2)]
    secret = re.search(r"AWS_SECRET_ACCESS_KEY=(\w{40})<", rotated)
    assert secret is not None and secret[1] != found[2] and secret[0] in repeated
