"""The pages of sources, over HTTP: what they show and hide, what they do, and where they are linked."""

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.service import sources
from app.sources.kinds import Kinds, SourceError
from tests import fake_sources
from tests.fake_sources import FakeKind, FakeQueue, failing_for_an_hour
from tests.sluices import Replica
from tests.support import poll
from tests.ui.visitors import Visitor, visitor
from tests.wire.api import fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

SECRET = "hunter2-7f3a"
SQS = {
    "kind": "sqs",
    "queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
    "region": "eu-west-1",
    "credentials": {"access_key_id": "AKIA7F3A", "secret_access_key": SECRET},
}


class Elsewhere(dict[str, FakeQueue]):
    """The queues elsewhere, by stream; an SQS queue has none."""

    def __missing__(self, stream: str) -> FakeQueue:
        self[stream] = FakeQueue()
        return self[stream]


@pytest.fixture
async def elsewhere(guarded: Replica) -> AsyncIterator[Elsewhere]:
    core = guarded.sluice.core
    before, queues = core.sources, Elsewhere()
    kind = FakeKind(queues)
    core.sources = Kinds({"redis_stream": kind, "sqs": kind})
    yield queues
    await fake_sources.remove_all(core)
    core.sources = before


@pytest.fixture
async def operator(guarded: Replica, elsewhere: Elsewhere) -> Visitor:
    return await visitor(guarded)


async def source_of(
    one: Visitor, queue: str = "", whole: dict[str, Any] | None = None, **given: Any
) -> tuple[str, str]:
    """A source on a stream of its own, or with this definition, and its queue, which is made if none is given; their names."""
    name = fresh("s")
    if not queue:
        queue = fresh("q")
        await one.api("PUT", f"/queues/{queue}", "{}")
    definition = {**whole, "queue": queue} if whole else {**fake_sources.definition(queue, stream=name), **given}
    await one.api("PUT", f"/sources/{name}", msgspec.json.encode(definition).decode())
    return name, queue


async def test_a_source_is_shown_without_its_secrets_and_with_what_it_has_done(
    guarded: Replica, operator: Visitor, elsewhere: Elsewhere
) -> None:
    name, queue = await source_of(operator, url=f"redis://me:{SECRET}@127.0.0.1/1", headers={"x-shop": SECRET})
    page = f"/ui/sources/{name}"
    assert "no message yet" in (await operator.get(page)).text
    elsewhere[name].put(b"1", b"2")

    async def came() -> bool:
        return (await operator.api("GET", f"/sources/{name}"))["enqueued"] == 2

    await poll(came)
    found = (await operator.get(page)).text
    assert f'/ui/queues/{queue}"' in found and "receiving" in found and guarded.sluice.core.replica.name in found
    assert re.search(r"Received</dt><dd>2<small>the last <time", found)
    assert re.search(r"Unfinished</dt><dd>2<small>of at most 100", found)
    assert "x-shop" in found
    listed = (await operator.get("/ui/sources")).text
    [row] = [row for row in listed.split("<tr>") if f'{page}"' in row]
    assert "Redis stream" in row and f'/ui/queues/{queue}"' in row and "<time" in row
    bare, _ = await source_of(operator, queue, whole=SQS)
    shown = (await operator.get(f"/ui/sources/{bare}")).text
    assert str(SQS["queue_url"]) in shown and "eu-west-1" in shown and "its own, never shown" in shown
    everything = found + listed + shown + (await operator.get("/ui/audit?noun=source")).text
    assert SECRET not in everything and "AKIA7F3A" not in everything and "redis://" not in everything


async def test_a_source_is_paused_resumed_and_tested_by_forms_and_the_audit_says_so(
    operator: Visitor, elsewhere: Elsewhere
) -> None:
    name, _ = await source_of(operator)
    page = f"/ui/sources/{name}"
    token = await operator.token(page)
    for verb, paused in (("pause", True), ("resume", False)):
        assert f'"{page}/{verb}"' in (await operator.get(page)).text
        answer = await operator.post(f"{page}/{verb}", {"token": token})
        assert answer.headers["location"] == f"{page}?notice=source-{verb}d"
        assert (await operator.api("GET", f"/sources/{name}"))["paused"] is paused
        assert 'role="status"' in (await operator.get(answer.headers["location"])).text
    audit = (await operator.get(f"/ui/audit?noun=source&name={name}")).text
    for verb in ("put", "pause", "resume"):
        assert re.search(f'<b>{verb}</b> source <a href="{page}"', audit), verb
    elsewhere[name].fails = SourceError("the password is wrong")
    assert "the password is wrong" in (await operator.post(f"{page}/test", {"token": token})).text
    elsewhere[name].fails = None
    assert "can be received from" in (await operator.post(f"{page}/test", {"token": token})).text


@pytest.mark.parametrize("scope", ["read", "use", "manage"])
async def test_a_key_sees_no_button_that_its_scope_refuses_and_is_refused_when_it_posts_anyway(
    guarded: Replica, operator: Visitor, scope: str
) -> None:
    name, _ = await source_of(operator)
    one = await visitor(guarded, scope)
    found = await one.get(f"/ui/sources/{name}")
    assert found.status_code == 200
    for verb in ("pause", "test", "resume"):
        path = f"/ui/sources/{name}/{verb}"
        assert (f'"{path}"' in found.text) == (scope == "manage" and verb != "resume"), verb
        if scope != "manage":
            assert (await one.post(path, {"token": await one.token("/ui")})).status_code == 403, verb
    assert (await operator.api("GET", f"/sources/{name}"))["paused"] is False


async def test_what_a_key_does_not_see_is_not_there(guarded: Replica, operator: Visitor, elsewhere: Elsewhere) -> None:
    mine, queue = await source_of(operator)
    hidden, _ = await source_of(operator)
    for name in (mine, hidden):
        elsewhere[name].fails = SourceError(f"{name} is away")
        await failing_for_an_hour(guarded.sluice.core, name)
    other = await visitor(guarded, tenant="other")
    confined = Visitor(guarded)
    issued = await operator.api("POST", "/keys", f'{{"scope": "manage", "queues": ["{queue}"], "payloads": false}}')
    assert (await confined.sign_in(issued["token"])).status_code == 303
    for one, seen in ((other, ()), (confined, (mine,))):
        token = await one.token("/ui")

        async def alarmed(one: Visitor = one, seen: tuple[str, ...] = seen) -> str | None:
            page = (await one.get("/ui")).text
            return page if all(f"/ui/sources/{name}" in page for name in seen) else None

        pages = await poll(alarmed) + (await one.get("/ui/sources")).text
        for name in (mine, hidden):
            assert (name in pages) == (name in seen), name
            path = f"/ui/sources/{name}"
            assert ((await one.get(path)).status_code == 200) == (name in seen)
            for verb in ("pause", "resume", "test"):
                if name not in seen:
                    assert (await one.post(f"{path}/{verb}", {"token": token})).status_code == 404, verb
    assert (await operator.api("GET", f"/sources/{hidden}"))["paused"] is False


async def test_each_of_several_stuck_sources_is_an_alarm_that_leads_to_it_and_to_its_runbook(
    guarded: Replica, operator: Visitor, elsewhere: Elsewhere
) -> None:
    names = [(await source_of(operator))[0] for _ in range(2)]
    for name in names:
        elsewhere[name].fails = SourceError("nobody answers")
        await failing_for_an_hour(guarded.sluice.core, name)

    async def alarmed() -> bool:
        page = (await operator.get("/ui")).text
        return all(
            f'/ui/sources/{name}">{name}</a> · <a href="/ui/docs/runbooks/source-is-stuck"' in page for name in names
        )

    await poll(alarmed)
    found = (await operator.get(f"/ui/sources/{names[0]}")).text
    assert "It fails" in found and "nobody answers" in found and "/ui/docs/runbooks/source-is-stuck" in found
    assert (await operator.get("/ui/docs/runbooks/source-is-stuck")).status_code == 200


async def test_a_queue_names_the_sources_that_feed_it(
    operator: Visitor, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, queue = await source_of(operator)
    _, other = await source_of(operator)
    found = (await operator.get(f"/ui/queues/{queue}")).text
    assert "Fed by" in found and found.count('"/ui/sources/') == 1 and f'"/ui/sources/{name}"' in found
    empty = fresh("q")
    await operator.api("PUT", f"/queues/{empty}", "{}")
    assert "Fed by" not in (await operator.get(f"/ui/queues/{empty}")).text
    monkeypatch.setattr("app.ui.screens.queues.SHOWN_SOURCES", 1)
    await source_of(operator, other)
    found = (await operator.get(f"/ui/queues/{other}")).text
    assert "The first 1." in found and found.count('"/ui/sources/') == 1


async def test_markup_in_texts_of_others_is_shown_as_text(operator: Visitor, elsewhere: Elsewhere) -> None:
    markup = "</pre><b id=x>'\"&amp;"
    named: dict[str, Any] = {"group": markup, "field": markup, "description": markup, "type": markup, "tags": [markup]}
    name, queue = await source_of(operator, stream=markup, **named)
    elsewhere[markup].fails = SourceError(markup)

    async def failed() -> bool:
        return (await operator.api("GET", f"/sources/{name}"))["last_error"] == markup

    await poll(failed)
    token = await operator.token("/ui")
    pages = [(await operator.get(f"/ui{path}")).text for path in ("/sources", f"/sources/{name}", f"/queues/{queue}")]
    pages.append((await operator.post(f"/ui/sources/{name}/test", {"token": token})).text)
    for page in pages:
        assert "&lt;/pre&gt;&lt;b id=x&gt;&#39;&#34;&amp;amp;" in page and "<b id=x>" not in page


async def test_long_lists_are_pages(operator: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ui.screens.sources.DEFAULT_LIMIT", 2)
    made = sorted([(await source_of(operator))[0] for _ in range(3)])
    first = (await operator.get("/ui/sources")).text
    following = re.search('<a href="([^"]+)" rel="next">', first)
    assert following is not None
    second = (await operator.get(following[1].replace("&amp;", "&"))).text
    listed = [re.findall('<th scope="row"><a href="/ui/sources/([^"]+)"', page) for page in (first, second)]
    assert listed == [made[:2], made[2:]]


async def test_what_is_not_there_is_a_page_that_says_so(guarded: Replica, operator: Visitor) -> None:
    for path in ("none", "%00", "a%2fb"):
        assert (await operator.get(f"/ui/sources/{path}")).status_code == 404, path
    empty = await visitor(guarded, tenant=fresh("t"))
    assert '<div class="empty">' in (await empty.get("/ui/sources")).text


async def test_viewers_share_a_renewal_which_comes_by_time_too(
    guarded: Replica, operator: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = await source_of(operator)
    path, read = f"/ui/sources/{name}", []
    assert "every 5s" in (await operator.get(path)).text
    whole = sources.get

    async def get(*args: object) -> object:
        read.append(args[2])
        return await whole(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "get", get)
    monkeypatch.setattr("app.runtime.looks.FRESH_SECONDS", 60.0)
    viewers = [operator, await visitor(guarded), await visitor(guarded)]
    pages = [(await one.get(path, **{"hx-request": "true"})).text for one in viewers]
    assert all(page.startswith("<main") for page in pages)
    assert read == [name]
    tokens = {found for page in pages for found in re.findall('name="token" value="([0-9a-f]+)"', page)}
    assert len(tokens) == 3
    reader = await visitor(guarded, "read")
    assert "/pause" not in (await reader.get(path, **{"hx-request": "true"})).text


async def test_handlers_that_are_queues_elsewhere_are_shown_without_their_secrets(operator: Visitor) -> None:
    stream = {"kind": "redis_stream", "url": f"redis://me:{SECRET}@127.0.0.1", "stream": "orders", "maxlen": 1000}
    wanted = ((SQS, str(SQS["queue_url"])), (stream, "orders"))
    for given, address in wanted:
        name = fresh("h")
        await operator.api("PUT", f"/handlers/{name}", msgspec.json.encode(given).decode())
        pages = (await operator.get("/ui/handlers")).text + (await operator.get(f"/ui/handlers/{name}")).text
        assert pages.count(address) >= 2
        assert SECRET not in pages and "AKIA7F3A" not in pages and "redis://" not in pages
