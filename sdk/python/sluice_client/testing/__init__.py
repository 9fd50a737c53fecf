"""Tests of code that uses Sluice: a fake in memory, and a real service. pytest finds both as fixtures of a plugin.

A name is imported when it is first used: pytest imports this package in every run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice_client.testing.clock import Clock
    from sluice_client.testing.draining import Ran
    from sluice_client.testing.fixture import Dispatched, InlineFailure, SluiceTest
    from sluice_client.testing.server import SluiceServer

__all__ = ["Clock", "Dispatched", "InlineFailure", "Ran", "SluiceServer", "SluiceTest"]

_ROOM_OF = {
    "Clock": "clock",
    "Dispatched": "fixture",
    "Ran": "draining",
    "SluiceServer": "server",
    "SluiceTest": "fixture",
    "InlineFailure": "fixture",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    return value
