"""Pages that renew themselves: what is sent again is made once for all who see the same, and for nobody else."""

import asyncio
import itertools
import re
from typing import Any

import pytest
from markupsafe import Markup

from app.domain import plurals
from app.service import overview, why
from app.ui.kept import MOST_KEPT, Kept
from tests.sluices import Replica
from tests.support import poll
from tests.ui.visitors import Visitor, visitor
from tests.wire.api import fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, guarded: Replica) -> list[str]:
    """The names of queues that were read for a page, while one look at the tenant lasts."""
    read: list[str] = []
    whole = why.of_queue

    async def of_queue(*args: Any) -> Any:
        read.append(args[2])
        return await whole(*args)

    monkeypatch.setattr(why, "of_queue", of_queue)
    monkeypatch.setattr("app.runtime.looks.FRESH_SECONDS", 60.0)
    return read


async def renewed(one: Visitor, path: str) -> str:
    found = await one.get(path, **{"hx-request": "true"})
    assert found.status_code == 200
    assert found.text.startswith("<main") and found.headers["cache-control"] == "no-store"
    return found.text


async def test_viewers_with_the_same_rights_share_one_rendering_and_have_forms_of_their_own(
    guarded: Replica, counted: list[str]
) -> None:
    viewers = [await visitor(guarded) for _ in range(3)]
    name = fresh("q")
    await viewers[0].api("PUT", f"/queues/{name}", "{}")
    path = f"/ui/queues/{name}"
    pages = await asyncio.gather(*(renewed(one, path) for one in viewers))
    assert counted == [name]
    tokens = [set(re.findall('name="token" value="([0-9a-f]+)"', page)) for page in pages]
    assert all(len(own) == 1 for own in tokens) and len(set.union(*tokens)) == 3
    token = tokens[1].pop()
    assert (await viewers[1].post(f"{path}/pause", {"token": token})).status_code == 303
    assert (await viewers[2].post(f"{path}/pause", {"token": token})).status_code == 403


async def test_a_rendering_is_not_shared_with_those_who_may_see_less(guarded: Replica, counted: list[str]) -> None:
    operator, reader = await visitor(guarded), await visitor(guarded, "read")
    other = await visitor(guarded, tenant="other")
    name = fresh("q")
    await operator.api("PUT", f"/queues/{name}", "{}")
    path = f"/ui/queues/{name}"
    assert "/pause" in await renewed(operator, path)
    assert "/pause" not in await renewed(reader, path)
    assert (await other.get(path, **{"hx-request": "true"})).status_code == 404
    assert counted == [name, name]


async def test_a_renewal_is_never_older_than_the_page_that_it_renews(guarded: Replica, counted: list[str]) -> None:
    operator = await visitor(guarded)
    name = fresh("q")
    await operator.api("PUT", f"/queues/{name}", "{}")
    path = f"/ui/queues/{name}"
    assert f'"{path}/pause"' in await renewed(operator, path)
    paused = await operator.post(f"{path}/pause", {"token": await operator.token("/ui")})
    assert f'"{path}/resume"' in (await operator.get(paused.headers["location"])).text
    assert f'"{path}/resume"' in await renewed(operator, path)


async def test_events_of_a_task_are_for_who_may_see_it(guarded: Replica) -> None:
    operator, other = await visitor(guarded), await visitor(guarded, tenant="other")
    name = fresh("q")
    await operator.api("PUT", f"/queues/{name}", "{}")
    task = (await operator.api("POST", f"/queues/{name}/tasks", '{"payload": 1}'))["id"]
    assert f"/ui/events?task={task}" in (await operator.get(f"/ui/tasks/{task}")).text
    assert (await other.get(f"/ui/events?task={task}")).status_code == 404
    assert (await other.get("/ui/events?task=7")).status_code == 422


async def test_a_page_does_not_wait_for_counts_that_take_long(
    guarded: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await visitor(guarded)
    name = fresh("q")
    await operator.api("PUT", f"/queues/{name}", "{}")
    counting = asyncio.Event()

    async def never(*_args: Any) -> Any:
        await counting.wait()
        raise RuntimeError("it was not asked for again")

    monkeypatch.setattr("app.service.queues.stats", never)
    page = (await operator.get(f"/ui/queues/{name}")).text
    assert "still being counted" in page and f'"/ui/queues/{name}/pause"' in page
    assert 'id="why"' in page, "what is quick is there"
    monkeypatch.undo()
    counting.set()
    assert "still being counted" not in (await operator.get(f"/ui/queues/{name}")).text


async def test_what_stays_the_same_is_rendered_once_and_what_changes_is_shown(guarded: Replica) -> None:
    kept, numbers = Kept(), itertools.count(1)

    def shown(*what: Any) -> str:
        return kept(*what, caller=lambda: Markup("{}").format(next(numbers)))

    assert [shown("a", [1]), shown("a", [2]), shown("a", [1]), shown("b", [1])] == ["1", "2", "1", "3"]
    for number in range(MOST_KEPT):
        shown(number)
    assert shown("a", [1]) == str(MOST_KEPT + 4), "not more than so many are kept"
    operator = await visitor(guarded, tenant=fresh("t"))
    await operator.api("PUT", "/queues/mail", "{}")
    await operator.api("POST", "/queues/mail/pause")
    for count in (1, 2):
        await operator.api("POST", "/queues/mail/tasks", '{"payload": 1}')

        async def alarmed(words: str = f"while {plurals.counted(count, 'task')} {plurals.are(count)} ready") -> bool:
            return words in await renewed(operator, "/ui")

        await poll(alarmed)


async def test_events_of_pages_carry_nothing_and_make_no_overview_for_it(
    guarded: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: overview.Shown) -> bytes:
        raise AssertionError("nobody reads it")

    monkeypatch.setattr(overview.Shown, "body", property(never))
    operator = await visitor(guarded)
    cookie = "; ".join(f"{name}={value}" for name, value in operator.cookies.items())
    async with guarded.client.stream("GET", "/ui/events", headers={"cookie": cookie}) as answer:
        said = b""
        async for part in answer.aiter_raw():
            said += part
            if b"event: overview" in said and said.endswith(b"\n\n"):
                break
    assert set(re.findall(rb"data: ?(.*)", said)) == {b"{}"}
