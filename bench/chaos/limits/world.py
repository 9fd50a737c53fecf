"""What the run sets up: queues, limits, and which of them each task takes. Terms are changed through the API, and noted before and
after."""

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from bench.chaos.limits.terms import Rate, Task, Terms, Use

KEYS = 200
ORDERED_KEYS = 12
HANDLER = "chaos"
TENANT = "tenant"
RETRY = {"max_attempts": 100, "backoff": {"kind": "fixed", "seconds": 0.3}, "retry_after_max_seconds": 1}

LIMITS: dict[str, Terms] = {
    "limit:shared": Terms(max_concurrency=6),
    "limit:api": Terms(rate=Rate(60, 10)),
    "limit:customer": Terms(max_concurrency=2, rate=Rate(20, 4)),
}
KEYED = {"limit:customer", "key:keyed"}
HANDLER_RATE = "handler"
OTHERS: dict[str, Terms] = {
    "key:keyed": Terms(max_concurrency=2),
    "queue:plain": Terms(rate=Rate(20, 5)),
    HANDLER_RATE: Terms(rate=Rate(120, 15)),
}
QUEUES: dict[str, dict[str, Any]] = {
    "keyed": {"handler": HANDLER, "key": {"max_concurrency": 2}, "limits": [{"name": "customer", "key": "task"}]},
    "mixed": {"handler": HANDLER},
    "plain": {"handler": HANDLER, "limits": ["shared"], "rate": {"limit": 20, "burst": 5}},
    "ordered": {"handler": HANDLER, "key": {"ordered": True}},
    "pull": {"handler": None},
}
LEVELS: dict[str, Terms] = {"queue:keyed": Terms(max_concurrency=12), TENANT: Terms(max_concurrency=24)}
"""In force for the first half: their rows are locked by each claim, which hides a missing gate."""
SHARES = {"keyed": 8, "mixed": 6, "plain": 4, "pull": 2}
MAX_COST = 4


def handler_body(url: str) -> dict[str, Any]:
    return {"url": url, "rate": key_body(OTHERS[HANDLER_RATE])["rate"]}


def queue_body(name: str, levels: Mapping[str, Terms]) -> dict[str, Any]:
    level = levels.get(f"queue:{name}", Terms())
    return {"retry": RETRY, "max_concurrency": level.max_concurrency, **QUEUES[name]}


def limit_body(name: str, terms: Terms) -> dict[str, Any]:
    return {**key_body(terms), "keyed": name in KEYED}


def key_body(terms: Terms) -> dict[str, Any]:
    rate = terms.rate and {"limit": terms.rate.per_second, "burst": int(terms.rate.burst)}
    return {"max_concurrency": terms.max_concurrency, "rate": rate}


def customer(dice: random.Random) -> str:
    """A key; the first have most of the tasks."""
    return f"c{min(int(dice.paretovariate(0.7)) - 1, KEYS - 1)}"


def make_task(number: int, dice: random.Random) -> Task:
    (queue,) = dice.choices(list(SHARES), list(SHARES.values()))
    levels = _levels(queue)
    match queue:
        case "keyed":
            key = customer(dice)
            return Task(number, queue, (*levels, Use("key:keyed", key), Use("limit:customer", key)), key)
        case "plain":
            return Task(number, queue, (*levels, Use("limit:shared")))
        case "pull":
            return Task(number, queue, (*levels, Use("limit:shared")), customer(dice))
    return make_mixed(number, dice)


def make_mixed(number: int, dice: random.Random) -> Task:
    """A task that brings limits of its own."""
    uses = [
        Use("limit:shared"),
        Use("limit:api", cost=dice.randint(1, MAX_COST)),
        Use("limit:customer", customer(dice)),
    ]
    own = dice.sample(uses, dice.randint(1, 3))
    return Task(number, "mixed", (*_levels("mixed"), *own), dice.choice([None, customer(dice)]))


def make_probe(number: int) -> Task:
    return Task(number, "mixed", _levels("mixed"), f"p{number}", probe=True)


def make_ordered(number: int, key: str, place: int, dice: random.Random) -> Task:
    own = (Use("limit:shared"),) if dice.random() < 0.3 else ()
    return Task(number, "ordered", (*_levels("ordered"), *own), key, place)


def _levels(queue: str) -> tuple[Use, ...]:
    own = (Use(TENANT), Use(f"queue:{queue}"))
    return own if QUEUES[queue]["handler"] is None else (*own, Use(HANDLER_RATE))


def task_body(task: Task) -> dict[str, Any]:
    """What is sent. What the queue gives to all of its tasks is left out."""
    given = {"limit:customer"} if task.queue == "keyed" else {"limit:shared"} if task.queue == "plain" else set()
    limits = [
        {"name": use.limit.removeprefix("limit:"), "cost": use.cost, **({"key": use.key} if use.key else {})}
        for use in task.uses
        if use.limit.startswith("limit:") and use.limit not in given
    ]
    body: dict[str, Any] = {"payload": msgspec.to_builtins(task)}
    if task.key is not None:
        body["key"] = task.key
    if limits:
        body["limits"] = limits
    return body


def patch_body(task: Task) -> dict[str, Any]:
    """What changes a waiting task into this one."""
    return {"key": None, "limits": [], **task_body(task)}
