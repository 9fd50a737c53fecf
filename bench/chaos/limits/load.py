"""Who uses the replicas while they are harmed: senders, a puller, and an operator who changes limits and pauses keys."""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any

import asyncpg
import httpx2

from bench.chaos.limits import record, world
from bench.chaos.limits.terms import Rate, Task, Terms
from bench.chaos.replicas import ConcurrencySlot

BACKLOG = 300
"""Senders wait while so many tasks have not ended: what is tried is waiting, not storing."""
SENDERS = 6
PROBE_SECONDS = 0.5
EDIT_SECONDS = 0.5
REQUEST_SECONDS = 4.0
"""A replica that is paused answers nothing; the request is repeated elsewhere under its idempotency key."""
CHANGE_SECONDS = 60.0
PULLED = 8
RETRY_SECONDS = 0.2


class Api:
    """Any of the replicas."""

    def __init__(self, slots: Sequence[ConcurrencySlot], client: httpx2.AsyncClient, dice: random.Random) -> None:
        self.slots, self.dice = slots, dice
        self._client = client

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        slot: ConcurrencySlot | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Any:
        """Send a request to one replica.

        Raises:
            httpx2.HTTPError: It did not answer in time, or is gone.
            RuntimeError: It refused the request.
        """
        url = (slot or self.dice.choice(self.slots)).url + path
        answer = await self._client.request(method, url, json=body, headers=headers, timeout=seconds)
        if answer.status_code >= 500 or answer.status_code == 429:
            raise httpx2.ConnectError(f"{answer.status_code}")
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    async def text(self, path: str, slot: ConcurrencySlot) -> str:
        """Return what one replica answers to a GET.

        Raises:
            httpx2.HTTPError: It did not answer in time, or is gone.
        """
        return (await self._client.get(slot.url + path, timeout=1)).text

    async def surely(self, method: str, path: str, body: object = None) -> Any:
        """Send a request that may be repeated, until a replica has answered it."""
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                return await self.ask(method, path, body)
            await asyncio.sleep(RETRY_SECONDS)

    async def untouched(self, method: str, path: str, body: object = None) -> Any:
        """Send a request to a replica that is neither killed nor paused meanwhile: what was sent is over when this returns."""
        while True:
            for slot in self.dice.sample(self.slots, len(self.slots)):
                if not slot.busy.locked():
                    async with slot.busy:
                        with contextlib.suppress(httpx2.ConnectError):
                            return await self.ask(method, path, body, slot, seconds=CHANGE_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)


class Senders:
    """Tasks of all sorts, and those of ordered keys one after the other."""

    def __init__(self, api: Api, backlog: Callable[[], int]) -> None:
        self._api, self._backlog = api, backlog
        self._numbers = count(1)
        self.recent: deque[tuple[str, Task]] = deque(maxlen=200)
        """Tasks that may still wait, with their ids."""
        self.stopping = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self._send())
            group.create_task(self._probe())
            for number in range(world.ORDERED_KEYS):
                group.create_task(self._send_ordered(f"o{number}"))

    async def _send(self) -> None:
        dice = self._api.dice
        while await self._may_go_on():
            tasks = [world.make_task(next(self._numbers), dice) for _ in range(dice.choice([1, 1, 1, 8, 40]))]
            for queue in {task.queue for task in tasks}:
                those = [task for task in tasks if task.queue == queue]
                if len(those) == 1:
                    await self._send_one(those[0])
                    continue
                answer = await self._api.surely(
                    "POST", f"/queues/{queue}/tasks/bulk", {"tasks": list(map(_sent, those))}
                )
                if refused := [result for result in answer["results"] if result["status"] >= 400]:
                    raise RuntimeError(f"refused: {refused[0]}")
                self.recent.extend((result["id"], task) for result, task in zip(answer["results"], those, strict=True))
            await asyncio.sleep(dice.uniform(0, 0.2))

    async def _send_ordered(self, key: str) -> None:
        for place in count():
            if not await self._may_go_on():
                return
            task: Task = world.make_ordered(next(self._numbers), key, place, self._api.dice)
            await self._send_one(task)
            await asyncio.sleep(self._api.dice.uniform(0, 2))

    async def _send_one(self, task: Task) -> None:
        stored = await self._api.surely("POST", f"/queues/{task.queue}/tasks", _sent(task))
        self.recent.append((stored["id"], task))

    async def _probe(self) -> None:
        while not self.stopping:
            await self._api.surely("POST", "/queues/mixed/tasks", _sent(world.make_probe(next(self._numbers))))
            await asyncio.sleep(PROBE_SECONDS)

    async def _may_go_on(self) -> bool:
        while not self.stopping and self._backlog() > BACKLOG:
            await asyncio.sleep(0.1)
        return not self.stopping


def _sent(task: Task) -> dict[str, Any]:
    return {**world.task_body(task), "idempotency_key": f"{task.number}"}


class Editor:
    """Cancels tasks, and gives waiting ones another key and other limits."""

    def __init__(self, api: Api, senders: Senders) -> None:
        self._api, self._senders = api, senders

    async def run(self) -> None:
        dice = self._api.dice
        while not self._senders.stopping:
            await asyncio.sleep(dice.uniform(0, EDIT_SECONDS))
            if not self._senders.recent:
                continue
            task_id, task = dice.choice(self._senders.recent)
            # refused if the task runs or has ended
            with contextlib.suppress(httpx2.HTTPError, RuntimeError):
                if task.queue == "mixed" and dice.random() < 0.7:
                    changed = world.make_mixed(task.number, dice)
                    await self._api.ask("PATCH", f"/tasks/{task_id}", world.patch_body(changed))
                else:
                    await self._api.ask("POST", f"/tasks/{task_id}/cancel")


class Puller:
    """A worker of the queue without a handler, which is away at times: then its tasks wait, and must not keep others waiting."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def run(self) -> None:
        dice = self._api.dice
        while True:
            with contextlib.suppress(httpx2.HTTPError, RuntimeError):
                asked = {"max_tasks": PULLED, "wait_seconds": 1, "lease_seconds": 5}
                leased = await self._api.ask("POST", "/queues/pull/leases", asked)
                await asyncio.sleep(dice.uniform(0, 0.3))
                for task in leased["tasks"]:
                    token = {"sluice-lease-token": task["lease_token"]}
                    await self._api.ask("POST", f"/tasks/{task['id']}/complete", {}, headers=token)
            if dice.random() < 0.05:
                await asyncio.sleep(dice.uniform(2, 6))


class Operator:
    """Changes limits, overrides and pauses, and notes each change before it is sent and after it was answered."""

    def __init__(self, api: Api, database: asyncpg.Connection) -> None:
        self._api, self._database = api, database
        self.terms: dict[str, Terms] = {}
        self.changes = 0
        self.levels = True
        """Whether queues and the tenant still have limits."""

    async def set_up(self, handler_url: str) -> None:
        self.terms = {**world.LIMITS, **world.LEVELS, **world.OTHERS}
        await record.note(self._database, "changed", self.terms)
        await self._api.surely("PUT", f"/handlers/{world.HANDLER}", world.handler_body(handler_url))
        for name, terms in world.LIMITS.items():
            await self._api.surely("PUT", _path(name), world.limit_body(name, terms))
        for queue in world.QUEUES:
            await self._api.surely("PUT", f"/queues/{queue}", world.queue_body(queue, world.LEVELS))
        await self._api.surely("PUT", "/limits", {"max_concurrency": world.LEVELS[world.TENANT].max_concurrency})

    async def run(self, seconds: float) -> None:
        """Change things for so long. In the middle, take the limits of queues and tenant away; at the end, end every pause."""
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            if self.levels and now > begun + seconds / 2:
                await self._drop_levels()
                self.levels = False
            await self.change()
            await asyncio.sleep(self._api.dice.uniform(0.2, 1.0))
        for name in [name for name, terms in self.terms.items() if terms.paused]:
            await self._resume(name)

    async def change(self) -> None:
        """Change one thing, whichever."""
        dice = self._api.dice
        customer, key = f"limit:customer/{world.customer(dice)}", f"key:keyed/{world.customer(dice)}"
        choices: list[Callable[[], Awaitable[None]]] = [
            lambda: self._put("limit:shared", Terms(max_concurrency=dice.randint(2, 10))),
            lambda: self._put(
                "limit:api",
                Terms(
                    dice.choice([None, 2, 4]), Rate(dice.choice([30, 60, 90]), dice.choice([world.MAX_COST, 10, 20]))
                ),
            ),
            lambda: self._put("limit:customer", Terms(dice.choice([None, 1, 2, 3]), Rate(dice.choice([10, 20]), 4))),
            lambda: self._put(customer, Terms(dice.choice([None, 1, 2, 4]), dice.choice([None, Rate(8, 2)]))),
            lambda: self._put(key, Terms(max_concurrency=dice.randint(1, 4))),
            lambda: self._remove(customer),
            lambda: self._pause(customer),
            lambda: self._pause(key),
            lambda: self._pause(f"queue:{dice.choice(['keyed', 'mixed', 'plain', 'ordered'])}"),
            lambda: self._pause("limit:shared"),
        ]
        await dice.choice(choices)()

    async def _drop_levels(self) -> None:
        """Take the limits of queue and tenant away."""
        await self._note_around(
            {name: Terms(paused=self.terms[name].paused) for name in world.LEVELS},
            ("PUT", "/limits", {"max_concurrency": None}),
            *(("PUT", f"/queues/{queue}", world.queue_body(queue, {})) for queue in world.QUEUES),
        )

    async def _put(self, name: str, terms: Terms) -> None:
        before = self.terms.get(name, Terms(removed="/" in name))
        new = Terms(terms.max_concurrency, terms.rate, before.paused)
        body = world.key_body(terms) if "/" in name else world.limit_body(name, terms)
        await self._note_around({name: new}, ("PUT", _path(name), body))

    async def _remove(self, name: str) -> None:
        before = self.terms.get(name)
        if before is None or before.removed or before.paused:
            return
        await self._note_around({name: Terms(removed=True)}, ("DELETE", _path(name), None))

    async def _pause(self, name: str) -> None:
        """Pause, or resume what is paused. Few things are paused at once."""
        before = self.terms.get(name, Terms(removed="/" in name))
        if before.paused:
            await self._resume(name)
            return
        for other in [other for other, terms in self.terms.items() if terms.paused][2:]:
            await self._resume(other)
        new = Terms(before.max_concurrency, before.rate, True)
        await self._note_around({name: new}, ("POST", _path(name) + "/pause", None))

    async def _resume(self, name: str) -> None:
        before = self.terms[name]
        new = Terms(before.max_concurrency, before.rate)
        await self._note_around({name: new}, ("POST", _path(name) + "/resume", None))

    async def _note_around(self, terms: Mapping[str, Terms], *requests: tuple[str, str, object]) -> None:
        await record.note(self._database, "changing", terms)
        for method, path, body in requests:
            await self._api.untouched(method, path, body)
        await record.note(self._database, "changed", terms)
        self.terms |= terms
        self.changes += 1


def _path(name: str) -> str:
    kind, _, rest = name.partition(":")
    owner, _, key = rest.partition("/")
    return f"/{'limits' if kind == 'limit' else 'queues'}/{owner}" + (f"/keys/{key}" if key else "")
