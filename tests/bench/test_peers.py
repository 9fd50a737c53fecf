"""bench/peers: what counts as complete; the table and the chart, made of a recorded result."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.peers import report, roster
from bench.peers.__main__ import Bench, Plan
from bench.processes import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

RECORDED = sorted((ROOT / "bench" / "results").glob("*-peers.json"))


def turn(per_second: float, enqueues: float | None = None) -> dict[str, Any]:
    spent = {"worker": 200.0, "store": 50.0, "handler": 20.0}
    return {"per_second": per_second, "cpu_us": spent, "enqueues": enqueues}


RESULT: dict[str, Any] = {
    "machine": {
        "cpu": "some <CPU>",
        "cores": 2,
        "load_before": 0.1,
        "fdatasync_us": 900,
        "python": "3.11.7",
        "postgres": "18.1",
        "commit": "abc1234",
        "at": "2026-11-26T05:00:00+00:00",
    },
    "versions": {"nginx": "1.22.1", "redis": "7.0.15", "graphile-worker": "0.18.0", "bullmq": "6.7.0"},
    "plan": {"iterations": 3, "jobs": 10_000, "enqueue_seconds": 2.0},
    "turns": {
        "1": {
            "sluice": [turn(1_000, 2_000), turn(4_000, 2_000), turn(4_000, 2_000)],
            "bare": [turn(2_000), turn(8_000), turn(8_000)],
            # the machine was slow in the first round, for all of them
            "graphile-worker": [turn(500, 1_000), turn(2_000, 500), turn(4_000, 500)],
            "bullmq": [{}, {}, {}],
        },
        "2": {name: [turn(6_000)] * 3 for name in ("sluice", "bare", "graphile-worker", "bullmq")},
    },
    "problems": ["bullmq: 10,000 jobs, 10,001 deliveries"],
}


def test_a_ratio_is_the_median_of_each_rounds_own() -> None:
    figures = report.summary(RESULT)
    assert figures["graphile-worker"]["1"]["to_sluice"] == 0.5
    assert figures["graphile-worker"]["1"]["to_bare"] == 0.25
    assert figures["graphile-worker"]["enqueues"]["to_sluice"] == 0.25
    assert figures["sluice"]["1"]["to_bare"] == 0.5


def test_who_failed_is_in_the_table_without_figures() -> None:
    text = report.table(RESULT)
    one, two, enqueues, about = text.split("\n\n")
    assert [line.split()[0] for line in one.splitlines()[2:]] == ["bare", "Sluice", "graphile-worker", "bullmq"]
    assert one.splitlines()[-1].split()[-6:] == ["-"] * 6
    assert "6,000" in two and "2,000" in enqueues
    assert about.splitlines()[-1] == "PROBLEM: bullmq: 10,000 jobs, 10,001 deliveries"


def test_the_chart_is_well_formed_and_names_who_has_figures() -> None:
    drawn = "".join(ElementTree.fromstring(report.drawing(RESULT)).itertext())
    assert "graphile-worker" in drawn and "some <CPU>" in drawn


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_result_can_be_drawn_again(path: Path) -> None:
    result = json.loads(path.read_text())
    assert report.table(result)
    assert ElementTree.fromstring(report.drawing(result)).tag.endswith("svg")


class Contestant:
    """Delivers jobs to no handler: `served` is what a handler would have counted."""

    name, store = "somebody", roster.POSTGRES

    def __init__(self, *, more: int = 0, settles: bool = True) -> None:
        self.workers: list[Any] = []
        self.more, self.settles = more, settles
        self.jobs = self.count = 0

    async def add_worker(self) -> None:
        self.workers.append(SimpleNamespace(cpu_seconds=lambda: 0.0))

    async def fill(self, jobs: int) -> None:
        self.jobs = jobs

    def work(self) -> None:
        self.count += self.jobs + self.more

    async def settled(self) -> bool:
        return self.settles

    async def rest(self) -> None: ...

    async def enqueue(self, seconds: float) -> float | None:
        return 100.0

    async def stop(self) -> None: ...

    async def served(self) -> int:
        return self.count


async def turn_of(somebody: Contestant) -> tuple[dict[str, Any], list[str]]:
    nginx: Any = SimpleNamespace(served=somebody.served, child=SimpleNamespace(cpu_seconds=lambda: 0.0))
    postgres: Any = SimpleNamespace(pid=os.getpid())
    bench = Bench(Plan(1, 500, [1], [somebody.name]), postgres, nginx, None, [somebody])
    turns = await bench.rounds(1)
    return turns[somebody.name][0], bench.problems


async def test_a_turn_in_which_every_job_is_delivered_once_and_settled_has_figures() -> None:
    turn, problems = await turn_of(Contestant())
    assert turn["per_second"] > 0 and turn["enqueues"] == 100.0 and problems == []


@pytest.mark.parametrize(
    ("somebody", "problem"),
    [
        (Contestant(more=1), "somebody: 500 jobs, 501 deliveries"),
        (Contestant(more=-1), "somebody: 500 jobs, 499 deliveries"),
        (Contestant(settles=False), "somebody: 500 jobs, 500 deliveries, and not all settled"),
    ],
    ids=["doubled", "lost", "not settled"],
)
async def test_a_turn_that_doubles_or_loses_a_job_or_does_not_settle_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, somebody: Contestant, problem: str
) -> None:
    monkeypatch.setattr(Plan, "turn_max_seconds", 0.1)
    turn, problems = await turn_of(somebody)
    assert turn == {} and problem in problems
