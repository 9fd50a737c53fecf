"""One call for several attempts of a lane, to a handler that takes groups.

Each attempt stays what it is: a lease of its own, renewed, revoked and lost like any other, a place, a row and an outcome. Only the
call is shared. It takes an attempt in (`join`), is sent once for all of them, and shares out its answer (domain/grouped.py). An
attempt that is cut leaves its call, which goes on for the others; without any, the connection is closed.

Attempts share a call if they have the same timeout, because it has one deadline. A task with a target of its own is in no group.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial

from app.delivery.kinds import Call, GroupedCall, Sending
from app.domain.answers import Answer, NoAnswer
from app.domain.grouped import (
    MAX_GROUP_BYTES,
    Failure,
    GroupFault,
    decide_share,
    is_shared,
    share_out,
)
from app.domain.handlers import Grouping
from app.domain.outcomes import decide, decide_refused_document
from app.engine.attempts import Attempt, Decide
from app.engine.held import timeout_of
from app.runtime.core import Core
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import Claimed

ITEM_BYTES = 512
"""What a task takes in the document besides its payload and its headers, about."""
AT_ONCE = 50
"""How many attempts are told of an answer before others are read."""

Judge = Callable[[str], tuple[Answer | NoAnswer | Exception, Decide]]
"""Takes a task's id; returns what its attempt is to be told of the answer, and what decides its meaning."""


def parcels(tasks: Iterable[Claimed], policy: Policy, target: Target, group: Grouping) -> Iterator[list[Claimed]]:
    """Divide the tasks of a claim, in their order, into the tasks of one call each."""
    open_parcels: dict[float, tuple[list[Claimed], int]] = {}
    for task in tasks:
        timeout, size = timeout_of(task, policy, target), size_of(task)
        parcel, held = open_parcels.pop(timeout, ([], 0))
        if parcel and held + size > MAX_GROUP_BYTES:
            yield parcel
            parcel, held = [], 0
        parcel.append(task)
        if len(parcel) == group.max_tasks:
            yield parcel
        else:
            open_parcels[timeout] = parcel, held + size
    yield from (parcel for parcel, _ in open_parcels.values())


def size_of(task: Claimed) -> int:
    """Return about how many bytes the task takes in the document of its group."""
    headers = sum(len(name) + len(value) for name, value in task.options.headers.items())
    size = len(task.payload)
    return (size * 4 // 3 if task.options.binary else size) + headers + ITEM_BYTES


class GroupCall:
    """One call, from its first attempt until each has left it or been told of the answer."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._attempts: dict[str, tuple[Attempt, Call]] = {}
        """By task id."""
        self._ids: tuple[str, ...] = ()
        """The tasks that were sent, also those whose attempts have left."""
        self._sending: Sending | None = None
        self._telling: asyncio.Task[None] | None = None

    def join(self, attempt: Attempt, call: Call) -> Sending:
        """Take an attempt in before the call is sent; return what ends its part in it."""
        self._attempts[call.task_id] = attempt, call
        return _Seat(self, call.task_id)

    def send(self, now: datetime) -> None:
        """Send the call, unless every attempt has left. `now` is the database's time."""
        if not self._attempts:
            return
        self._ids = tuple(self._attempts)
        group_id = f"group_{self._core.ids.uuid7(int(now.timestamp() * 1000))}"
        calls = tuple(call for _, call in self._attempts.values())
        try:
            self._sending = self._core.delivery.send(GroupedCall(group_id, calls), now, self._answered)
        except Exception as error:
            self._answered(error)

    def leave(self, task_id: str) -> None:
        """Let an attempt out that has been cut."""
        del self._attempts[task_id]
        if not self._attempts:
            if self._sending is not None:
                self._sending.cancel()
            if self._telling is not None:
                self._telling.cancel()

    def _answered(self, answer: Answer | NoAnswer | Exception) -> None:
        self._sending = None
        self._telling = asyncio.get_running_loop().create_task(self._tell(answer))

    async def _tell(self, answer: Answer | NoAnswer | Exception) -> None:
        """Tell each attempt what the answer means for it, a few at a time."""
        judge = await self._judge(answer)
        for count, task_id in enumerate(tuple(self._attempts), 1):
            attempt, _ = self._attempts.pop(task_id, (None, None))
            if attempt is not None:
                attempt.told(*judge(task_id))
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _judge(self, answer: Answer | NoAnswer | Exception) -> Judge:
        """Return how the answer is to be read for each task."""
        try:
            if isinstance(answer, Exception):
                raise answer
            judge, whole = self._read(answer)
            attempt, _ = next(iter(self._attempts.values()))
            await attempt.tell_handler(answer, whole)
        except Exception as error:
            fault = error
            return lambda _: (fault, decide)
        return judge

    def _read(self, answer: Answer | NoAnswer) -> tuple[Judge, Decide]:
        """Return how the answer is to be read for each task, and what decides its meaning for the handler."""
        whole: Decide = decide
        try:
            if isinstance(answer, Answer) and is_shared(answer):
                shares = share_out(answer, self._ids)
                return lambda task_id: _of_share(answer, shares[task_id]), whole
        except GroupFault as fault:
            whole = partial(decide_refused_document, fault=str(fault))
        return lambda _: (answer, whole), whole


class _Seat:
    """An attempt's part in the call of its group."""

    __slots__ = ("_call", "_task_id")

    def __init__(self, call: GroupCall, task_id: str) -> None:
        self._call = call
        self._task_id = task_id

    def cancel(self) -> None:
        self._call.leave(self._task_id)


def _of_share(answer: Answer, share: Answer | Failure) -> tuple[Answer, Decide]:
    return (answer, partial(decide_share, share)) if isinstance(share, Failure) else (share, decide)
