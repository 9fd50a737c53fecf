"""The dashboards are what their script writes, show every metric, and have an answer for each of their expressions."""

import importlib.util
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.engine import snapshot
from app.telemetry.definitions import DEFINITIONS
from tests import fake_sources
from tests.docs.pages import ROOT
from tests.fake_sources import FakeQueue
from tests.handlers import Handler, Reply
from tests.monitoring.prometheus import prometheus
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

FOLDER = ROOT / "deploy" / "grafana"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards_of_grafana", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def expressions() -> list[tuple[str, str]]:
    """Of every panel, with its title."""
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name, found in shown().items()
        for panel in found["panels"]
        for target in panel["targets"]
    ]


def test_the_dashboards_are_what_the_script_writes() -> None:
    module = script()
    written = {name: module.text(found) for name, found in module.dashboards().items()}
    assert written == {path.name: path.read_text() for path in FOLDER.glob("*.json")}, "python deploy/grafana/build.py"


def test_every_metric_is_on_a_dashboard_and_nothing_else_is() -> None:
    asked = {name for _, text in expressions() for name in re.findall(r"\bsluice_\w+", text)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert families == {definition.name for definition in DEFINITIONS}


def test_panels_do_not_lie_on_one_another() -> None:
    for found in shown().values():
        taken: set[tuple[int, int]] = set()
        for panel in found["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
            taken |= cells


async def load(api: Api, handler: Handler) -> str:
    """Make a little of everything that a panel shows; return the queue that it is in."""
    limit = await api.limit(max_concurrency=50)
    target = await api.handler(handler.url, max_concurrency=10, breaker={})
    queue = await api.queue(target, max_depth=1000, max_concurrency=10, limits=[limit], retry=AT_ONCE)
    hours = {"queue": queue, "payload": 1, "cron": "0 * * * *"}
    good(await api.put("/schedules/nightly", json=hours), 201)
    good(await api.put("/sources/orders", json=fake_sources.definition(await api.queue())), 201)
    handler.answer(*[Reply(500), Reply(200)] * 3)
    await api.until((await api.enqueue(queue))["id"], "succeeded")
    return queue


def says_something(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(one["value"][1])) for one in series)


@pytest.mark.ci
@pytest.mark.anyio
async def test_every_expression_has_an_answer_after_some_load(
    replica: Replica, handler: Handler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT_SECONDS", 0.3)
    monkeypatch.setattr(snapshot, "SNAPSHOT_SHARE", 1.0)
    api = Api(replica.client, replica.url)
    elsewhere = FakeQueue()
    elsewhere.put(b"1")
    fake_sources.install(replica.sluice.core, defaultdict(lambda: elsewhere))
    queue = await load(api, handler)
    async with prometheus(tmp_path, [replica.url]) as watching:
        await watching.has_scraped(1)
        left = [
            (title, text.replace("$__rate_interval", "30s").replace("$tenant", ".*").replace("$queue", ".*"))
            for title, text in expressions()
        ]
        assert len(left) > 50

        async def all_answered() -> bool:
            """A rate needs counts that grow from one scrape to the next."""
            handler.answer(Reply(500), Reply(200))
            await api.enqueue(queue)
            left[:] = [one for one in left if not says_something(await watching.ask(one[1]))]
            return not left

        try:
            await poll(all_answered, 20, every_seconds=0.3)
        except AssertionError:
            pytest.fail(f"no answer: {left}")
