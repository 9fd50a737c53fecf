"""What a caller whose key is confined to queues may name.

Handlers and limits do not exist for it, except that it may name those which its queues name: its tasks are delivered there anyway.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.callbacks import called_queues
from app.domain.callers import Caller
from app.domain.errors import FieldError, invalid
from app.domain.limits import LimitUse
from app.domain.tasks import Enqueue
from app.runtime.core import Core
from app.store import queue_names


@dataclass(frozen=True, slots=True)
class Reach:
    """What there is to name for a caller."""

    caller: Caller
    handlers: Collection[str]
    limits: Collection[str]

    def faults(
        self, handler: str | None, uses: Sequence[LimitUse], callbacks: dict[str, Any] | None, where: str = ""
    ) -> list[FieldError]:
        """Return what a task or a definition names that does not exist for the caller. `where` is its pointer."""
        errors: list[FieldError] = []
        if handler is not None and handler not in self.handlers:
            errors.append(FieldError(f"{where}/handler", f"there is no handler {handler}"))
        errors += [
            FieldError(f"{where}/limits/{index}/name", f"there is no limit {use.name}")
            for index, use in enumerate(uses)
            if use.name not in self.limits
        ]
        errors += [
            FieldError(f"{where}/callbacks/{state}/queue", f"there is no queue {queue}")
            for state, queue in called_queues(callbacks).items()
            if not self.caller.sees(queue)
        ]
        return errors


async def reach_of(core: Core, caller: Caller) -> Reach:
    """Return what there is to name for a caller that is confined to queues."""
    handlers, limits = await queue_names.named_within(
        core.db.reads(caller.tenant_id), caller.tenant_id, caller.queues or ()
    )
    return Reach(caller, handlers, limits)


async def check_named(core: Core, caller: Caller, request: Enqueue) -> None:
    """Check what a task of a confined caller names. Raises Refusal (invalid)."""
    if request.handler is not None or request.limits or request.callbacks is not None:
        reach = await reach_of(core, caller)
        if errors := reach.faults(request.handler, request.limits, request.callbacks):
            raise invalid(errors)
