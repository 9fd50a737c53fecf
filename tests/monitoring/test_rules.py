"""The alerts: each is tested by promtool, has a runbook, and fires in a real Prometheus when replicas suffer."""

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.embedded.postgres import EmbeddedPostgres
from app.engine import snapshot
from app.settings import Settings
from app.telemetry.definitions import DEFINITIONS
from tests.docs.pages import ROOT, blocks
from tests.handlers import Handler, Reply
from tests.monitoring.prometheus import RULES, Prometheus, program, prometheus
from tests.sluices import Replica, replica_with
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

ALERTS = (
    *("queue-is-not-draining", "queue-stopped", "backlog-will-not-clear", "handler-is-failing", "tasks-are-dying"),
    *("retry-storm", "handler-disabled", "queue-paused-with-work", "limit-saturated", "queue-nearly-full"),
    *(
        "leases-are-lost",
        "schedule-is-late",
        "schedule-missed-a-time",
        "source-is-stuck",
        "no-engine",
        "replica-silent",
    ),
    *("loop-is-lagging", "old-transaction", "connections-short", "database-unreachable", "enqueue-error-budget"),
)
TESTS = RULES.with_name("rules_test.yml")
GUIDE = ROOT / "docs" / "guides" / "monitoring.md"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_has_a_severity_and_a_runbook_of_its_name() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == set(ALERTS)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        assert (ROOT / rule["annotations"]["runbook"]).exists()


def test_every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    fired = {(case["alertname"], alert["exp_labels"]["severity"]) for case in cases for alert in case["exp_alerts"]}
    assert fired == {(rule["alert"], rule["labels"]["severity"]) for rule in rules() if "alert" in rule}
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


def test_the_rules_ask_only_for_metrics_that_there_are() -> None:
    exported = {definition.name for definition in DEFINITIONS}
    exported |= {
        f"{d.name}_{part}" for d in DEFINITIONS if d.kind == "histogram" for part in ("bucket", "count", "sum")
    }
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        asked = set(re.findall(r"\bsluice(?:_|:)[\w:]+", rule["expr"]))
        assert asked <= exported | recorded, rule


def test_the_guide_lists_every_alert_with_its_severities() -> None:
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(([^)]+)\) \| ([a-z, ]+) \|", GUIDE.read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(dict.fromkeys(name for name, _, _ in rows))
    severities: dict[str, list[str]] = {}
    for rule in rules():
        if "alert" in rule:
            severities.setdefault(rule["alert"], []).append(rule["labels"]["severity"])
    assert {name: shown.split(", ") for name, _, shown in rows} == severities
    assert all(page == f"../runbooks/{name}.md" for name, page, _ in rows)


@pytest.mark.ci
def test_the_guides_configuration_is_one_of_prometheus(tmp_path: Path) -> None:
    [configuration] = blocks(GUIDE, "yaml")
    (tmp_path / "prometheus.yml").write_text(configuration)
    found = subprocess.run(
        [program("promtool"), "check", "config", "--syntax-only", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.ci
def test_promtool_finds_that_each_rule_fires_once_and_is_silent_once() -> None:
    for arguments in (("check", "rules", RULES.name), ("test", "rules", TESTS.name)):
        found = subprocess.run(
            [program("promtool"), *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr


@asynccontextmanager
async def replica_of(dsn: str, role: str) -> AsyncIterator[Replica]:
    settings = Settings.model_validate({"database_url": dsn, "port": 0, "role": role, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        yield replica


async def suffering(api: Api, handler: Handler, watching: Prometheus) -> str:
    """Make work that goes well, and queues in all sorts of trouble; return the queue of which nothing starts."""
    fine = await api.queue_to(handler.url)
    for _ in range(3):
        await api.until((await api.enqueue(fine))["id"], "succeeded")
    paused = await api.queue_to(handler.url)
    good(await api.post(f"/queues/{paused}/pause"))
    await api.enqueue(paused)
    failing = Reply(400, {"sluice-retry": "no"})
    handler.answer(*[failing] * 16)
    dying = await api.queue_to(handler.url, retry=AT_ONCE)
    await api.until((await api.enqueue(dying))["id"], "dead")
    await watching.knows(f'sluice_attempts_total{{queue="{dying}"}}')  # increase() counts from the first scrape on
    for _ in range(15):
        await api.until((await api.enqueue(dying))["id"], "dead")
    disabled = await api.handler(handler.url)
    good(await api.post(f"/handlers/{disabled}/disable"))
    full = await api.queue(max_depth=2)
    await api.enqueue(full)
    await api.enqueue(full)
    return full


@pytest.mark.ci
@pytest.mark.anyio
async def test_the_alerts_fire_in_a_real_prometheus_when_replicas_suffer(
    durable_postgres: EmbeddedPostgres, handler: Handler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT_SECONDS", 0.3)
    monkeypatch.setattr(snapshot, "SNAPSHOT_SHARE", 1.0)
    async with AsyncExitStack() as stack, AsyncExitStack() as engines:
        front = await stack.enter_async_context(replica_of(durable_postgres.dsn, "api"))
        engine = await engines.enter_async_context(replica_of(durable_postgres.dsn, "engine"))
        watching = await stack.enter_async_context(prometheus(tmp_path, [front.url, engine.url]))
        api = Api(front.client, front.url)
        await watching.has_scraped(2)
        await watching.is_calm()

        stopped = await suffering(api, handler, watching)
        found = await watching.fires(
            *("queue-paused-with-work", "tasks-are-dying", "handler-is-failing", "handler-disabled"),
            *("queue-nearly-full", "queue-stopped"),
        )
        assert found["queue-stopped"]["labels"]["queue"] == stopped
        assert "is 100% full" in found["queue-nearly-full"]["annotations"]["summary"]
        assert not {"no-engine", "database-unreachable", "enqueue-error-budget"} & found.keys()

        await engines.aclose()
        await watching.fires("no-engine")

        await durable_postgres.stop()

        async def budget_burns() -> bool:
            """By the enqueues that are refused."""
            await api.post(f"/queues/{stopped}/tasks", json={"payload": 1})
            return {"database-unreachable", "enqueue-error-budget"} <= (await watching.firing()).keys()

        await poll(budget_burns, 30, every_seconds=0.1)
        await durable_postgres.start()

        async def back() -> bool:
            return "database-unreachable" not in await watching.firing()

        await poll(back, 30, every_seconds=0.1)
