"""Keys over the wire: who makes, sees, rotates and revokes which."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.keys import Grant
from app.store import keys as store
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Granted = Callable[[str, Grant], Awaitable[Api]]
WithToken = Callable[[str], Awaitable[Api]]


async def test_a_key_is_shown_once_and_reads_as_it_was_made(granted: Granted, with_token: WithToken) -> None:
    tenant = fresh("t")
    boss = await granted(tenant, Grant("manage"))
    wanted = {
        "kind": "bearer",
        "scope": "use",
        "queues": ["mail", "billing-*"],
        "payloads": False,
        "expires_at": "2100-01-01T00:00:00.000000Z",
        "description": "for the dashboard",
    }
    reply = await boss.post("/keys", json=wanted)
    made = good(reply, 201)
    assert reply.headers["cache-control"] == "no-store" and reply.headers["location"].endswith(f"/keys/{made['id']}")
    token = made.pop("token")
    good(await (await with_token(token)).get("/queues"))
    found = good(await boss.get(f"/keys/{made['id']}"))
    assert found.pop("last_used_at") is not None
    assert made.pop("last_used_at") is None
    assert (
        found
        == made
        == {**wanted, "id": made["id"], "tenant": tenant, "created_at": made["created_at"], "revoked_at": None}
    )
    assert next(key["id"] for key in await boss.pages("/keys")) == made["id"]
    assert token not in (await boss.get("/keys")).text


async def test_a_key_is_rotated_and_revoked(granted: Granted, with_token: WithToken) -> None:
    boss = await granted(fresh("t"), Grant("manage"))
    made = good(await boss.post("/keys", json={"scope": "read"}), 201)
    rotated = good(await boss.post(f"/keys/{made['id']}/rotate"))
    assert rotated["id"] == made["id"]
    for token in (made["token"], rotated["token"]):
        good(await (await with_token(token)).get("/queues"))
    assert (await boss.delete(f"/keys/{made['id']}")).status_code == 204
    for token in (made["token"], rotated["token"]):
        problem(await (await with_token(token)).get("/queues"), 401, "unauthenticated")
    assert (await boss.delete(f"/keys/{made['id']}")).status_code == 204
    assert good(await boss.get(f"/keys/{made['id']}"))["revoked_at"] is not None
    problem(await boss.post(f"/keys/{made['id']}/rotate"), 422, "invalid")
    problem(await boss.get("/keys/unknown"), 404, "key_not_found")


async def test_a_replica_writes_by_itself_which_keys_were_used(
    granted: Granted, keyed: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.known_keys.NOTE_SECONDS", 0.0)
    tenant = fresh("t")
    good(await (await granted(tenant, Grant("read"))).get("/queues"))

    async def written() -> bool:
        rows = await store.list_all(keyed.sluice.core.db)
        return [row.last_used_at is not None for row in rows if row.tenant == tenant] == [True]

    await poll(written)


async def test_no_key_makes_another_that_reaches_further(granted: Granted) -> None:
    tenant = fresh("t")
    narrow = Grant("manage", queues=("mail-*",), payloads=False)
    asker = await granted(tenant, narrow)
    fine = {"scope": "manage", "queues": ["mail-*"], "payloads": False}
    made = good(await asker.post("/keys", json=fine), 201)
    for more in (
        {"scope": "operate"},
        {"queues": None},
        {"queues": ["mail*"]},
        {"payloads": True},
        {"tenant": "other"},
    ):
        problem(await asker.post("/keys", json=fine | more), 403, "forbidden")
    boss = await granted(tenant, Grant("operate"))
    wider = [
        good(await boss.post("/keys", json=given), 201)
        for given in ({"scope": "manage"}, {"queues": ["other"]}, {"queues": ["mail-a"], "scope": "use"})
    ]
    for key in wider[:2]:
        for reply in (
            await asker.get(f"/keys/{key['id']}"),
            await asker.post(f"/keys/{key['id']}/rotate"),
            await asker.delete(f"/keys/{key['id']}"),
        ):
            problem(reply, 404, "key_not_found")
    problem(await asker.post(f"/keys/{wider[2]['id']}/rotate"), 403, "forbidden")
    problem(await asker.delete(f"/keys/{wider[2]['id']}"), 403, "forbidden")
    mine = {key["id"] for key in await asker.pages("/keys")}
    assert {made["id"], wider[2]["id"]} <= mine and not mine & {key["id"] for key in wider[:2]}
    manager = await granted(tenant, Grant("manage"))
    above = good(await boss.post("/keys", json={"scope": "operate"}), 201)
    problem(await manager.post(f"/keys/{above['id']}/rotate"), 403, "forbidden")
    problem(await manager.delete(f"/keys/{above['id']}"), 403, "forbidden")


async def test_an_operator_handles_the_keys_of_every_tenant_and_makes_new_ones(
    granted: Granted, with_token: WithToken
) -> None:
    tenant, other = fresh("t"), fresh("t")
    boss, manager = await granted(tenant, Grant("operate")), await granted(tenant, Grant("manage"))
    problem(await boss.get("/keys", params={"tenant": other}), 404, "tenant_not_found")
    made = good(await boss.post("/keys", json={"tenant": other, "scope": "use"}), 201)
    assert made["tenant"] == other
    assert [key["id"] for key in await boss.pages("/keys", tenant=other)] == [made["id"]]
    assert {other, tenant} <= {key["tenant"] for key in await boss.pages("/keys")}
    problem(await manager.get("/keys", params={"tenant": other}), 403, "forbidden")
    assert {key["tenant"] for key in await manager.pages("/keys")} == {tenant}
    for reply in (await manager.get(f"/keys/{made['id']}"), await manager.delete(f"/keys/{made['id']}")):
        problem(reply, 404, "key_not_found")
    assert (await boss.delete(f"/keys/{made['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"scope": "all"}, "/scope"),
        ({"queues": []}, "/queues"),
        ({"queues": ["a b"]}, "/queues/0"),
        ({"queues": ["a?"]}, "/queues/0"),
        ({"queues": ["x"] * 101}, "/queues"),
        ({"tenant": "Not A Name"}, "/tenant"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"payloads": None}, "/payloads"),
        ({"expires_at": "9999-12-31T23:59:59.999999Z"}, "/expires_at"),
        ({"description": "x" * 1001}, "/description"),
        ({"description": "a\0b"}, "/description"),
        ({"token": "slk_x"}, "/token"),
    ],
)
async def test_what_is_no_key_is_refused(granted: Granted, body: dict[str, Any], where: str) -> None:
    boss = await granted("acme", Grant("operate"))
    problem(await boss.post("/keys", json=body), 422, "invalid", where)


async def test_a_tenant_has_so_many_keys_and_no_more(
    keyed: Replica, granted: Granted, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = await granted(fresh("t"), Grant("manage"))
    monkeypatch.setattr(keyed.sluice.core, "max_definitions", 2)
    made = good(await boss.post("/keys", json={}), 201)
    problem(await boss.post("/keys", json={}), 422, "invalid")
    assert (await boss.delete(f"/keys/{made['id']}")).status_code == 204
    good(await boss.post("/keys", json={}), 201)
