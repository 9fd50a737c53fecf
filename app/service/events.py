"""Events for those who watch: the overview when it changed, alarms at once, and a task as it changes.

An event's id says what its receiver knows by then: the overview, the alarms, the task, each as a digest. Whoever comes back with
the last id, to any replica, is sent what is different now; what was in between is not repeated.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import reduce
from operator import xor
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.overviews import Alarm, Event
from app.runtime.core import Core
from app.runtime.viewers import Viewer
from app.service import tasks
from app.service.overview import alarm_key, shown_to
from app.store.failures import Unavailable

HEARTBEAT_SECONDS = 15.0
OVERVIEW_SECONDS = 2.0
"""An overview is sent at most this often."""
UNREACHABLE_CODE = "database_unreachable"
UNREACHABLE: Alarm = {"code": UNREACHABLE_CODE, "message": "the database does not answer; what is shown is older"}
_ID = re.compile(r"[0-9a-f]{0,16}\.[0-9a-f]{0,16}\.(?:[0-9a-f]{0,16}|gone)")


class Known(NamedTuple):
    """What a viewer knows, each as a digest; empty: nothing."""

    overview: str = ""
    alarms: str = ""
    task: str = ""

    @property
    def id(self) -> str:
        return ".".join(self)


def known(last_event_id: str | None) -> Known:
    """Return what is known to someone with this id; nothing if it is not one of ours."""
    return Known(*last_event_id.split(".")) if last_event_id and _ID.fullmatch(last_event_id) else Known()


async def watch(
    core: Core,
    caller: Caller,
    task_id: str | None,
    last_event_id: str | None,
    still: Callable[[], Awaitable[object]],
    *,
    bare: bool = False,
) -> AsyncGenerator[Event, None]:
    """Yield events until the replica drains, or until `still`, asked before each, raises Refusal (unauthenticated). `bare`: with an
    empty object as the data of each.

    The first event is a heartbeat. Raises Refusal: task_not_found, unavailable (too many viewers, or the replica is draining).
    """
    caller.require("read")
    if core.viewers.closed:
        raise Refusal("unavailable", "this replica is shutting down", retry_after_seconds=1)
    if task_id is not None:
        await tasks.get(core, caller, task_id)
    async with core.viewing.turn(caller.tenant_id):
        with core.viewers.watching(caller.tenant_id, operates=caller.may("operate"), task_id=task_id) as viewer:
            yield Event("heartbeat")
            async with aclosing(_Feed(core, caller, viewer, known(last_event_id), bare=bare).events()) as events:
                async for event in events:
                    if not await _is_still(still):
                        return
                    yield event


async def _is_still(still: Callable[[], Awaitable[object]]) -> bool:
    try:
        await still()
    except Unavailable:
        return True  # nothing is known to have changed
    except Refusal as refusal:
        return refusal.code == "unavailable"
    return True


class _Feed:
    """What one viewer is sent."""

    def __init__(self, core: Core, caller: Caller, viewer: Viewer, known: Known, *, bare: bool) -> None:
        self._core = core
        self._caller = caller
        self._viewer = viewer
        self._known = known
        self._bare = bare
        self._alarms: dict[str, Alarm] | None = None
        """Those it has been told of, by alarm_key; None: not compared with what it knows yet."""
        self._sum = 0
        self._held_until: float | None = None
        """When an overview that came too early may be sent, in monotonic seconds."""
        self._overview_at = 0.0

    async def events(self) -> AsyncGenerator[Event, None]:
        while not self._core.viewers.closed:
            self._viewer.changed.clear()
            async for event in self._due():
                yield event
            if not self._core.viewers.closed and not await self._news():
                yield Event("heartbeat")
        yield Event("drain")

    async def _news(self) -> bool:
        """Wait for something newer, or until a held overview may be sent; return False after a long silence."""
        wait = HEARTBEAT_SECONDS if self._held_until is None else max(0.0, self._held_until - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                await self._viewer.changed.wait()
        except TimeoutError:
            return self._held_until is not None
        return True

    async def _due(self) -> AsyncIterator[Event]:
        viewer = self._viewer
        shown = None if viewer.look is None else await shown_to(self._core, self._caller, viewer.look)
        if shown is not None or viewer.unreachable:
            alarms = {} if shown is None else shown.alarms
            for event in self._alarm_events(alarms | _AWAY if viewer.unreachable else alarms):
                yield event
        self._held_until = None
        if shown is not None and shown.digest != self._known.overview:
            if time.monotonic() < self._overview_at:
                self._held_until = self._overview_at
            else:
                self._overview_at = time.monotonic() + OVERVIEW_SECONDS
                yield self._event("overview", b"" if self._bare else shown.body, overview=shown.digest)
        if viewer.task_id is not None and viewer.task not in ("", self._known.task):
            digest, task = viewer.task, await self._task(viewer.task_id)
            if task is not None:
                yield self._event("task", task, task=digest)

    def _alarm_events(self, now: Mapping[str, Alarm]) -> Iterator[Event]:
        if self._alarms is None:
            self._alarms = dict(now) if self._known.alarms == _digest(now) else {}
            self._sum = _sum(self._alarms)
        for key in now.keys() - self._alarms.keys():
            self._alarms[key] = now[key]
            yield self._alarm(key, now[key], active=True)
        for key in self._alarms.keys() - now.keys():
            yield self._alarm(key, self._alarms.pop(key), active=False)

    def _alarm(self, key: str, alarm: Alarm, *, active: bool) -> Event:
        self._sum ^= int(key, 16)
        return self._event("alarm", msgspec.json.encode(alarm | {"active": active}), alarms=f"{self._sum:016x}")

    async def _task(self, task_id: str) -> bytes | None:
        """Return the task without its payload; None if it can no longer be read."""
        try:
            view = await tasks.get(self._core, self._caller, task_id)
        except Refusal:
            return None
        return msgspec.json.encode(msgspec.structs.replace(view, payload=UNSET, payload_base64=UNSET))

    def _event(self, kind: str, data: bytes, **learned: str) -> Event:
        self._known = self._known._replace(**learned)
        return Event(kind, b"{}" if self._bare else data, self._known.id)


def _sum(alarms: Iterable[str]) -> int:
    """Return the digest of a set of alarms as a number, to which one is added or taken away by exclusive or."""
    return reduce(xor, (int(key, 16) for key in alarms), 0)


def _digest(alarms: Iterable[str]) -> str:
    return f"{_sum(alarms):016x}"


_AWAY = {alarm_key(UNREACHABLE): UNREACHABLE}
