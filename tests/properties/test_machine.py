"""Runs the state machine: a few examples, more in the checks, SLUICE_TEST_EXAMPLES of them when asked."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.databases import WorkerDatabase
from tests.properties.machine import Machine
from tests.properties.world import World

EXAMPLES = int(os.environ.get("SLUICE_TEST_EXAMPLES", "4"))
MORE = 10
STEPS = int(os.environ.get("SLUICE_TEST_STEPS", "20"))
MINIMIZED = "SLUICE_TEST_EXAMPLES" in os.environ
PHASES = [phase for phase in Phase if MINIMIZED or phase not in (Phase.shrink, Phase.explain)]
MINIMIZE_SECONDS = 900 if MINIMIZED else 0


@pytest.fixture
def world(database_url: str, worker_database: WorkerDatabase) -> Iterator[World]:
    with World(database_url).running() as world:
        yield world


@pytest.mark.hypothesis
@pytest.mark.timeout(MINIMIZE_SECONDS + 120 + 15 * (EXAMPLES + MORE))
@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MORE, marks=pytest.mark.ci)])
def test_two_replicas_and_the_model_agree_whatever_happens(world: World, examples: int) -> None:
    """A failure takes minutes to minimize. The program that shows it is worth the wait to whoever asks for examples."""
    Machine.world = world
    Machine.runs.clear()
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                phases=PHASES,
                deadline=None,
                print_blob=True,
                derandomize=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        print("\nproperty runs:", *(f"{count} {what}" for what, count in sorted(Machine.runs.items())), sep="\n  ")
