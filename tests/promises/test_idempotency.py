"""P6: the same idempotency key yields the same task, under any race; another payload under it is refused."""

import asyncio
import contextlib
import random
from collections import defaultdict
from uuid import uuid4

import httpx2
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import queues
from app.store import enqueues
from app.store import queues as store
from app.store.enqueues import Entry
from app.store.queues import QueueRow
from tests.promises.gates import shut, until_waiting
from tests.sluices import Replica
from tests.wire.api import Api, problem

pytestmark = pytest.mark.anyio


async def race(sluices: list[Api], queue: str, requests: list[tuple[str, object]]) -> list[httpx2.Response]:
    """Post (key, payload) at all replicas at once; the answers in order."""
    return await asyncio.gather(
        *(
            sluices[number % len(sluices)].post(
                f"/queues/{queue}/tasks", json={"payload": payload}, headers={"idempotency-key": key}
            )
            for number, (key, payload) in enumerate(requests)
        )
    )


async def stored(replica: Replica) -> int:
    return int(await replica.sluice.core.db.fetchval("select count(*) from sluice.tasks"))


async def test_racing_enqueues_under_one_key_make_one_task(replicas: list[Replica]) -> None:
    sluices = [Api(replica.client, replica.url) for replica in replicas]
    queue = await sluices[0].queue()
    requests: list[tuple[str, object]] = [(f"key-{number % 12}", number % 12) for number in range(180)]
    random.Random(6).shuffle(requests)
    ids = defaultdict(set)
    created: list[str] = []
    for (key, payload), answer in zip(requests, await race(sluices, queue, requests), strict=True):
        assert answer.json()["payload"] == payload
        ids[key].add(answer.json()["id"])
        if answer.status_code == 201:
            created.append(key)
            assert "idempotent-replayed" not in answer.headers
        else:
            assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert sorted(created) == sorted(ids), "each key was answered 201 once"
    assert [len(found) for found in ids.values()] == [1] * 12
    assert await stored(replicas[0]) == 12


async def test_of_racing_payloads_under_one_key_one_wins_and_the_others_are_refused(replicas: list[Replica]) -> None:
    sluices = [Api(replica.client, replica.url) for replica in replicas]
    queue = await sluices[0].queue()
    requests: list[tuple[str, object]] = [(f"key-{number % 8}", number % 3) for number in range(120)]
    random.Random(7).shuffle(requests)
    winners: dict[str, tuple[object, str]] = {}
    refused = []
    for (key, payload), answer in zip(requests, await race(sluices, queue, requests), strict=True):
        if answer.status_code == 422:
            problem(answer, 422, "idempotency_mismatch")
            refused.append((key, payload))
        else:
            won = (payload, answer.json()["id"])
            assert winners.setdefault(key, won) == won, "two payloads were let in under one key"
    assert len(winners) == 8 and len(refused) == 80
    assert not [key for key, payload in refused if winners[key][0] == payload]
    assert await stored(replicas[0]) == 8


async def queue_row(core: Core, caller: Caller, definition: QueueDefinition | None = None) -> QueueRow:
    await queues.put(core, caller, "mail", definition or QueueDefinition(), ANY)
    row = await store.find(core.db, caller.tenant_id, "mail")
    assert row is not None
    return row


def entry(core: Core, row: QueueRow, key: str) -> Entry:
    task_id = core.ids.uuid7(int(core.clock.seconds() * 1000))
    return Entry(task_id, row.id, row.version, 0, b"null", key, b"fingerprint", None)


async def race_groups(cores: list[Core], row: QueueRow, keys: list[str], groups: int, url: str) -> dict[str, set[str]]:
    """Groups that hold the same keys, each in an order of its own, begin to write together; each key's answers."""
    dice = random.Random(len(keys))
    ids: dict[str, set[str]] = defaultdict(set)

    async def group(core: Core) -> None:
        entries = [entry(core, row, key) for key in dice.sample(keys, len(keys))]
        receipt = None
        while receipt is None:
            # on a busy machine the last one comes when the first has waited for as long as an enqueue does
            with contextlib.suppress(enqueues.KeysHeld):
                receipt = await enqueues.enqueue(core.db, str(uuid4()), entries)
        for ordinal, one in enumerate(entries, 1):
            verdict = receipt.verdicts.get(ordinal, ["created", one.task_id])
            assert verdict[0] in ("created", "replayed"), verdict
            ids[one.key or ""].add(verdict[1])

    async with shut(url, "idempotency_keys"):
        racing = asyncio.gather(*(group(cores[number % len(cores)]) for number in range(groups)))
        await until_waiting(cores[0], groups)
    await racing
    return ids


async def test_groups_with_the_same_keys_in_any_order_neither_deadlock_nor_repeat_a_task(
    cores: list[Core], caller: Caller, database_url: str
) -> None:
    row = await queue_row(cores[0], caller)
    for round_ in range(5):
        keys = [f"{round_}-{number}" for number in range(100)]
        ids = await race_groups(cores, row, keys, 12, database_url)
        assert {len(found) for found in ids.values()} == {1}
    assert await cores[0].db.fetchval("select count(*) from sluice.tasks") == 500


async def test_a_key_whose_time_is_over_names_one_new_task(
    cores: list[Core], caller: Caller, database_url: str
) -> None:
    core = cores[0]
    row = await queue_row(core, caller)
    keys = [f"key-{number}" for number in range(40)]
    old = await race_groups(cores, row, keys, 3, database_url)
    await core.db.fetch("update sluice.idempotency_keys set expires_at = clock_timestamp() - interval '1 second'")
    new = await race_groups(cores, row, keys, 12, database_url)
    assert {len(found) for found in new.values()} == {1}
    assert not any(old[key] & new[key] for key in keys)
    assert await core.db.fetchval("select count(*) from sluice.tasks") == 80


async def test_a_full_queue_refuses_without_keeping_the_key_and_replays_what_it_holds(
    cores: list[Core], caller: Caller, database_url: str
) -> None:
    core = cores[0]
    row = await queue_row(core, caller, QueueDefinition(max_depth=25))
    verdicts: dict[str, set[str]] = defaultdict(set)

    async def group(core: Core, keys: list[str]) -> None:
        entries = [entry(core, row, key) for key in keys]
        receipt = await enqueues.enqueue(core.db, str(uuid4()), entries)
        for ordinal, key in enumerate(keys, 1):
            verdicts[key].add(receipt.verdicts.get(ordinal, ["created"])[0])

    keys = [f"key-{number}" for number in range(60)]
    async with shut(database_url, "tasks"):
        groups = [group(cores[n % 3], random.Random(n).sample(keys, 20)) for n in range(12)]
        racing = asyncio.gather(*groups)
        await until_waiting(core, 12)
    await racing
    held = {row[0] for row in await core.db.fetch("select idempotency_key from sluice.tasks")}
    known = {row[0] for row in await core.db.fetch("select key from sluice.idempotency_keys")}
    assert len(held) == 25 and known == held
    for key, found in verdicts.items():
        assert found <= ({"created", "replayed"} if key in held else {"queue_full"}), (key, found)


async def test_a_depth_is_exact_whoever_races_for_its_last_places(
    cores: list[Core], caller: Caller, database_url: str
) -> None:
    core = cores[0]
    row = await queue_row(core, caller, QueueDefinition(max_depth=25))

    async def group(core: Core) -> int:
        entries = [entry(core, row, "")._replace(key=None, fingerprint=None) for _ in range(7)]
        return 7 - len((await enqueues.enqueue(core.db, str(uuid4()), entries)).verdicts)

    async with shut(database_url, "tasks"):
        racing = asyncio.gather(*(group(cores[n % 3]) for n in range(12)))
        await until_waiting(core, 12)
    assert sum(await racing) == 25
    assert await core.db.fetchval("select count(*) from sluice.tasks") == 25
