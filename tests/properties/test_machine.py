"""Runs the state machine: a few examples, more in the checks, SLUICE_TEST_EXAMPLES of them when asked."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.databases import WorkerDatabase
from tests.properties.machine import Machine
from tests.properties.world import World

EXAMPLES = int(os.environ.get("SLUICE_TEST_EXAMPLES", "4"))
MORE = 10
STEPS = int(os.environ.get("SLUICE_TEST_STEPS", "20"))
MINUTES = 60


@pytest.fixture
def world(database_url: str, worker_database: WorkerDatabase) -> Iterator[World]:
    with World(database_url).running() as world:
        yield world


@pytest.mark.timeout(15 * MINUTES + 10 * (EXAMPLES + MORE))
@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MORE, marks=pytest.mark.ci)])
def test_two_replicas_and_the_model_agree_whatever_happens(world: World, examples: int) -> None:
    """A failure takes minutes to minimise: the program that shows it is worth the wait."""
    Machine.world = world
    Machine.runs.clear()
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                print_blob=True,
                derandomize=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        print("\nproperty runs:", *(f"{count} {what}" for what, count in sorted(Machine.runs.items())), sep="\n  ")
