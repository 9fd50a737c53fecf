"""Check payloads against their queues' schemas without delaying other requests.

A schema is examined once: here if it is short and simple, otherwise in a child process, which compiles it and reports how long
that took. Schemas that compile within a fraction of a millisecond are kept compiled here, and check small payloads inline.
Everything else is checked in child processes. Tenants take turns at both kinds of process, each with an allowance of their time.
"""

import asyncio
from dataclasses import dataclass, field

from app.domain.allowances import Allowance
from app.domain.errors import FieldError, Refusal
from app.domain.fair_cache import FairCache
from app.domain.schemas.bounds import Bounds
from app.domain.schemas.rules import (
    Checked,
    check_size,
    examine,
    is_short,
    may_hold_huge,
    mismatch,
    name_violations,
    payload_value,
    schema_value,
    try_compile,
)
from app.runtime.schema_pool import SchemaPool
from app.runtime.schema_process import Reply, Request

INLINE_UNITS = 10_000
"""About half a millisecond."""
INLINE_ERROR_UNITS = 1_000
"""Describing an error costs more than detecting it."""
INLINE_COMPILE_SECONDS = 0.0005
INLINE_CHARS = 16_384
COMPILE_SECONDS = 0.5
CHECK_SECONDS = 2.0
"""Processor time for a check; more than for compiling, which may have to be repeated."""
REQUEST_SECONDS = 5.0
"""Processor time for all checks of one request, however many tasks it has."""
TENANT_BURST_SECONDS = 30.0
TENANT_RATE = 0.5
"""A tenant's allowance of child processor time per second, beside its burst."""
CHECK_PROCESSES = 2
"""A tenant uses one at a time, so that one is left for others."""
MAX_KEPT_BYTES = 64 * 1024**2
COMPILED_BYTES = 128 * 1024
"""Approximate maximum size of a schema kept compiled here."""


@dataclass(frozen=True, slots=True)
class _Examined:
    errors: list[FieldError]
    checked: Checked | None
    """None: it has errors, or is checked in a child process."""
    overdue: bool = False
    """It could not be compiled in time."""


@dataclass(slots=True)
class CheckBudget:
    """Seconds of processor time that the checks of one request may still use in child processes."""

    left: float = field(default_factory=lambda: REQUEST_SECONDS)

    def require(self) -> None:
        """Raise Refusal (unavailable) if nothing is left."""
        if self.left <= 0:
            raise Refusal(
                "unavailable",
                f"the payloads of this request took {REQUEST_SECONDS:g} seconds of processor time to check; "
                "send fewer at a time",
                retry_after_seconds=1,
            )


class SchemaChecker:
    def __init__(self) -> None:
        self._kept: FairCache[str, _Examined] = FairCache(max_weight=MAX_KEPT_BYTES)
        """By the schema's text, so that it outlives other changes of a queue, and queues share it."""
        self._examining: dict[tuple[int, str], asyncio.Task[_Examined]] = {}
        allowance = Allowance(rate=TENANT_RATE, burst=TENANT_BURST_SECONDS)
        self._compilers = SchemaPool("the process that compiles schemas", allowance, places=1)
        self._checkers = SchemaPool("the processes that check payloads", allowance, places=CHECK_PROCESSES)

    async def compile(self, tenant: int, schema: str) -> list[FieldError]:
        """Return what is wrong with a schema. Raises Refusal (unavailable)."""
        if errors := check_size(schema):
            return errors
        known = self._kept.get(tenant, schema)
        if known is not None and known.overdue:
            self._kept.forget(tenant, schema)  # a new request gets another chance
        return (await self._examined(tenant, schema)).errors

    async def check(
        self, tenant: int, schema: str, payload: bytes, where: str, budget: CheckBudget | None = None
    ) -> None:
        """Check a payload. Raises Refusal: payload_schema_mismatch with pointers below `where`, unavailable."""
        examined = self._kept.get(tenant, schema) or await self._examined(tenant, schema)
        errors = None
        if examined.checked is not None and not may_hold_huge(payload):
            validator, bounds = examined.checked
            units = bounds.units(payload)
            if units <= INLINE_UNITS:
                value = payload_value(payload)
                if validator.is_valid(value):
                    errors = []
                elif units <= INLINE_ERROR_UNITS:
                    errors = name_violations(validator, value, all_of_them=True)
                if units > INLINE_ERROR_UNITS:
                    await asyncio.sleep(0)  # many tasks in one request take turns with other requests
        if errors is None:
            errors = await self._check_in_child(tenant, schema, payload, budget or CheckBudget())
        if errors:
            raise mismatch(errors, where)

    async def _examined(self, tenant: int, schema: str) -> _Examined:
        examined = self._kept.get(tenant, schema) or _examine_inline(schema)
        if examined is None:
            examining = self._examining.get((tenant, schema))
            if examining is None:
                examining = asyncio.create_task(self._examine_in_child(tenant, schema))
                self._examining[tenant, schema] = examining
                examining.add_done_callback(lambda task: self._examination_ended(task, tenant, schema))
            # Shielded, because several callers wait for one answer and any of them may be cancelled.
            return await asyncio.shield(examining)
        self._keep(tenant, schema, examined)
        return examined

    async def _examine_in_child(self, tenant: int, schema: str) -> _Examined:
        reply, _ = await self._compilers.ask(Request(tenant, schema, None, COMPILE_SECONDS))
        if reply is None:
            cannot = FieldError(
                "/payload_schema", f"could not be compiled within {COMPILE_SECONDS} seconds; simplify it"
            )
            examined = _Examined([cannot], None, overdue=True)
        else:
            examined = _Examined(reply.errors, _compiled(schema, reply))
        self._keep(tenant, schema, examined)
        return examined

    def _examination_ended(self, task: asyncio.Task[_Examined], tenant: int, schema: str) -> None:
        del self._examining[tenant, schema]
        if not task.cancelled():
            task.exception()  # retrieved here, because everyone who asked may have gone

    def _keep(self, tenant: int, schema: str, examined: _Examined) -> None:
        weight = len(schema) if examined.checked is None else COMPILED_BYTES
        self._kept.put(tenant, schema, examined, weight + 1_024)

    async def _check_in_child(self, tenant: int, schema: str, payload: bytes, budget: CheckBudget) -> list[FieldError]:
        budget.require()
        seconds = min(CHECK_SECONDS, budget.left)
        reply, used = await self._checkers.ask(Request(tenant, schema, payload, seconds))
        budget.left -= used
        if reply is not None:
            return reply.errors
        if seconds < CHECK_SECONDS:
            budget.require()
        return [
            FieldError(
                "",
                f"could not be checked against the queue's schema within {CHECK_SECONDS:g} seconds; simplify either",
            )
        ]

    async def close(self) -> None:
        """End the processes; requests that still need them are refused as unavailable."""
        for examining in list(self._examining.values()):
            examining.cancel()
        await self._compilers.close()
        await self._checkers.close()


def _examine_inline(schema: str) -> _Examined | None:
    """Examine a schema on the event loop; return None if that might take long."""
    if not is_short(schema):
        return None
    errors, bounds = examine(schema)
    if errors:
        return _Examined(errors, None)
    if not bounds.plain:
        return None
    compiled = try_compile(schema_value(schema))
    return _Examined(compiled, None) if isinstance(compiled, list) else _Examined([], (compiled, bounds))


def _compiled(schema: str, reply: Reply) -> Checked | None:
    """Compile a schema here too, if it is known to take no time."""
    if not reply.cheap or reply.compile_seconds > INLINE_COMPILE_SECONDS or len(schema) > INLINE_CHARS:
        return None
    compiled = try_compile(schema_value(schema))
    return None if isinstance(compiled, list) else (compiled, Bounds([], [], True, reply.applications, reply.states))
