"""API keys: making, knowing and revoking them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from app.domain.errors import Refusal
from app.domain.ids import make_api_key
from app.domain.instants import format_instant
from app.domain.keys import Grant
from app.runtime.core import Core
from app.service import authentication, keys
from app.store import keys as store
from app.telemetry import events
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def test_a_key_made_for_a_new_tenant_lets_its_holder_in(core: Core) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    caller = await authentication.authenticate(core, token)
    assert (caller.tenant, caller.scope) == ("acme", "use")
    again = await authentication.authenticate(core, (await keys.create(core.db, "acme", Grant("manage"))).token)
    assert (again.tenant_id, again.scope) == (caller.tenant_id, "manage")
    assert [(key.tenant, key.scope, key.revoked_at) for key in await keys.list_keys(core.db)] == [
        ("acme", "use", None),
        ("acme", "manage", None),
    ]


async def test_neither_the_key_nor_its_secret_is_stored(core: Core) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    (row,) = await core.db.fetch("select k::text from sluice.api_keys k")
    assert token.split("_")[2] not in row[0]


@pytest.mark.parametrize(("tenant", "scope", "where"), [("Not a name", "use", "/tenant"), ("acme", "root", "/scope")])
async def test_a_key_for_nonsense_is_refused(core: Core, tenant: str, scope: str, where: str) -> None:
    with pytest.raises(Refusal, match="invalid") as refused:
        await keys.create(core.db, tenant, Grant(scope))
    assert [error.pointer for error in refused.value.errors] == [where]


async def test_what_is_no_key_of_ours_is_turned_away(core: Core) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    for wrong in ("", "slk_", token[:-1], token[:-1] + ("0" if token[-1] != "0" else "1"), make_api_key().text):
        with pytest.raises(Refusal, match="unauthenticated"):
            await authentication.authenticate(core, wrong)


async def test_the_secret_counts_and_not_only_the_id(core: Core) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    await core.db.fetch("update sluice.api_keys set digest = sha256('another')")
    with pytest.raises(Refusal, match="unauthenticated"):
        await authentication.authenticate(core, token)


async def test_a_revocation_holds_everywhere_when_it_returns(start_core: Callable[[], Awaitable[Core]]) -> None:
    here, there = [await start_core() for _ in range(2)]
    token = (await keys.create(here.db, "acme", Grant("use"))).token
    await authentication.authenticate(there, token)
    (key,) = await keys.list_keys(here.db)

    asked = asyncio.create_task(_asking(there, token))
    assert await keys.revoke(here.db, key.id)
    with pytest.raises(Refusal, match="unauthenticated"):
        await authentication.authenticate(there, token)
    await asked
    assert not await keys.revoke(here.db, key.id)
    assert not await keys.revoke(here.db, "unknown")


async def _asking(core: Core, token: str) -> None:
    """Keep asking until turned away: use does not keep a revoked key alive."""

    async def refused() -> bool:
        try:
            await authentication.authenticate(core, token)
        except Refusal:
            return True
        return False

    await poll(refused, 5)


async def test_many_requests_at_once_ask_the_database_once(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    asked: list[str] = []
    find = store.find

    async def counted(db: Any, key_id: str) -> Any:
        asked.append(key_id)
        return await find(db, key_id)

    monkeypatch.setattr(store, "find", counted)
    callers = await asyncio.gather(*(authentication.authenticate(core, token) for _ in range(50)))
    assert len({caller.tenant_id for caller in callers}) == 1
    await authentication.authenticate(core, token)
    assert len(asked) == 1
    assert not core.keys.questions


async def test_a_request_that_goes_away_takes_no_other_down(core: Core) -> None:
    token = (await keys.create(core.db, "acme", Grant("use"))).token
    gone = asyncio.create_task(authentication.authenticate(core, token))
    stays = asyncio.create_task(authentication.authenticate(core, token))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).tenant == "acme"


async def test_the_bootstrap_key_operates_the_default_tenant_and_can_be_seeded_again(core: Core) -> None:
    assert not await store.any_usable(core.db)
    token = make_api_key().text
    assert all(await asyncio.gather(*(keys.seed_bootstrap(core.db, token) for _ in range(4))))
    caller = await authentication.authenticate(core, token)
    assert (caller.tenant, caller.scope) == ("default", "operate")
    assert await store.any_usable(core.db)


async def test_a_revoked_bootstrap_key_stays_revoked(core: Core) -> None:
    token = make_api_key().text
    await keys.seed_bootstrap(core.db, token)
    await core.db.fetch("update sluice.api_keys set revoked_at = clock_timestamp()")
    assert not await keys.seed_bootstrap(core.db, token)
    with pytest.raises(Refusal, match="unauthenticated"):
        await authentication.authenticate(core, token)
    assert not await store.any_usable(core.db)


async def test_a_malformed_or_borrowed_bootstrap_key_is_refused(core: Core) -> None:
    for short in ("slk_short", "slk_" + "a" * 23):
        with pytest.raises(ValueError, match="must be slk_ and 24 to 196"):
            await keys.seed_bootstrap(core.db, short)
    with pytest.raises(ValueError, match="already exists"):
        await keys.seed_bootstrap(core.db, (await keys.create(core.db, "acme", Grant("use"))).token)


async def test_a_bootstrap_key_may_be_made_up_by_a_person(core: Core) -> None:
    assert await keys.seed_bootstrap(core.db, "slk_local-development-key-of-24")
    assert (await authentication.authenticate(core, "slk_local-development-key-of-24")).scope == "operate"
    with pytest.raises(Refusal, match="unauthenticated"):
        await authentication.authenticate(core, "slk_local-development-kex-of-24")


async def test_a_key_is_refused_from_the_instant_at_which_it_expires(core: Core) -> None:
    soon = core.clock.now() + timedelta(seconds=0.4)
    token = (await keys.create(core.db, "acme", Grant("use", expires_at=soon))).token
    assert (await authentication.authenticate(core, token)).expires_at == soon
    until = core.keys.callers[token][0]
    assert until - time.monotonic() < 0.5, "it is trusted no longer than it lasts"
    await _asking(core, token)
    with pytest.raises(Refusal, match="/expires_at: has passed"):
        await keys.create(core.db, "acme", Grant("use", expires_at=core.clock.now()))


async def test_a_rotated_key_keeps_its_id_and_for_a_while_its_former_token(core: Core) -> None:
    first = await keys.create(core.db, "acme", Grant("use", queues=("mail",)))
    second = await keys.rotate(core.db, first.id, 60)
    assert (second.id, second.queues) == (first.id, ["mail"]) and second.token != first.token
    assert await admitted(core, first.token, second.token) == [True, True]
    third = await keys.rotate(core.db, first.id, 0)
    assert await admitted(core, first.token, second.token, third.token) == [False, False, True]
    await keys.rotate(core.db, first.id, 0.4)
    await authentication.authenticate(core, third.token)
    await _asking(core, third.token)
    assert await keys.revoke(core.db, first.id)
    with pytest.raises(Refusal, match="revoked"):
        await keys.rotate(core.db, first.id, 0)
    with pytest.raises(Refusal, match="key_not_found"):
        await keys.rotate(core.db, "unknown", 0)


async def test_a_bootstrap_key_is_rotated_by_its_setting_alone(core: Core) -> None:
    key = make_api_key()
    await keys.seed_bootstrap(core.db, key.text)
    with pytest.raises(Refusal, match="SLUICE_BOOTSTRAP_KEY"):
        await keys.rotate(core.db, key.id, 0)


async def test_uses_are_noted_without_a_statement_per_request(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await keys.create(core.db, "acme", Grant("use"))
    monkeypatch.setattr(authentication, "CACHE_SECONDS", 60)
    before = core.clock.now() - timedelta(seconds=1)
    for _ in range(100):
        await authentication.authenticate(core, made.token)
    await core.keys.note(core.db)
    (key,) = await keys.list_keys(core.db)
    assert key.last_used_at is None, "it is not time to write"
    monkeypatch.setattr(core.keys, "noted_at", 0.0)
    await core.keys.note(core.db)
    (key,) = await keys.list_keys(core.db)
    assert key.last_used_at is not None and key.last_used_at > format_instant(before)
    assert core.keys.used == {}


async def test_an_older_use_noted_late_takes_nothing_back(core: Core) -> None:
    made = await keys.create(core.db, "acme", Grant("use"))
    now = core.clock.now()
    for at in (now, now - timedelta(seconds=50)):
        await store.note_uses(core.db, {made.id: at, "unknown": at})
    row = await store.find(core.db, made.id)
    assert row is not None and row.last_used_at == now


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append((event.name, fields)))
    return lines


async def admitted(core: Core, *tokens: str) -> list[bool]:
    found = []
    for token in tokens:
        core.keys.callers.clear()
        try:
            await authentication.authenticate(core, token)
        except Refusal:
            found.append(False)
        else:
            found.append(True)
    return found


async def test_a_new_bootstrap_key_revokes_the_one_before_and_says_so(
    core: Core, said: list[tuple[str, dict[str, Any]]]
) -> None:
    former, latter, other = (
        make_api_key(),
        make_api_key(),
        (await keys.create(core.db, "default", Grant("operate"))).token,
    )
    assert await keys.seed_bootstrap(core.db, former.text)
    assert said == []
    assert await keys.seed_bootstrap(core.db, latter.text)
    assert said == [("bootstrap_key_replaced", {"key": latter.id, "revoked": [former.id]})]
    assert await admitted(core, former.text, latter.text, other) == [False, True, True]


async def test_while_a_new_bootstrap_key_is_rolled_out_an_old_one_takes_nothing_back_and_stops_no_replica(
    core: Core, said: list[tuple[str, dict[str, Any]]]
) -> None:
    former, latter = make_api_key(), make_api_key()
    await keys.seed_bootstrap(core.db, former.text)
    await keys.seed_bootstrap(core.db, latter.text)
    said.clear()
    assert await keys.seed_bootstrap(core.db, former.text), "the replica starts"
    assert said == [("bootstrap_key_outdated", {"key": former.id, "current": latter.id})]
    assert await keys.seed_bootstrap(core.db, latter.text)
    assert len(said) == 1
    assert await admitted(core, former.text, latter.text) == [False, True]


async def test_replicas_that_bring_different_bootstrap_keys_at_once_agree_on_one(core: Core) -> None:
    tokens = [make_api_key().text for _ in range(4)]
    assert all(await asyncio.gather(*(keys.seed_bootstrap(core.db, token) for token in tokens)))
    assert sum(await admitted(core, *tokens)) == 1


async def test_a_bootstrap_key_that_was_revoked_by_hand_stays_so_until_another_is_given(core: Core) -> None:
    former, latter = make_api_key(), make_api_key()
    await keys.seed_bootstrap(core.db, former.text)
    await keys.revoke(core.db, former.id)
    assert not await keys.seed_bootstrap(core.db, former.text)
    assert await keys.seed_bootstrap(core.db, latter.text)
    assert await admitted(core, former.text, latter.text) == [False, True]


async def test_a_key_that_was_made_may_become_the_bootstrap_key(core: Core) -> None:
    former, made = make_api_key(), (await keys.create(core.db, "default", Grant("operate"))).token
    await keys.seed_bootstrap(core.db, former.text)
    assert await keys.seed_bootstrap(core.db, made)
    assert await admitted(core, former.text, made) == [False, True]
