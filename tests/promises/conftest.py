"""Stores as replicas see them: several cores, each with connections of its own, on one clean database."""

from collections.abc import Awaitable, Callable

import pytest

from app.runtime.core import Core
from tests.cores import caller, core, start_core

__all__ = ["caller", "core", "start_core"]


@pytest.fixture
async def cores(core: Core, start_core: Callable[[], Awaitable[Core]]) -> list[Core]:
    """Three, as of three replicas."""
    return [core, await start_core(), await start_core()]
