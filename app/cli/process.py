"""What the commands share that work in this process: on the database, or as a service."""

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from app.settings import Settings, load, unknown_variables

T = TypeVar("T")


def settings_of(**options: Any) -> Settings:
    for line in unknown_variables(os.environ):
        say(f"warning: {line}")
    return load(**options)


def quiet_settings() -> Settings:
    """For commands whose output matters: only warnings and errors are logged, to stderr."""
    from app.telemetry import logs

    logs.configure("warning")
    return settings_of()


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    import uvloop

    runner: Callable[[Coroutine[Any, Any, T]], T] = uvloop.run
    return runner(work)


def say(line: str) -> None:
    print(line, file=sys.stderr)
