"""The numbers used in SQL, each with one name: task states and advisory lock classes.

SQL files write `:state_ready` and `:lock_queue`. `named` inserts the numbers when a file is loaded, because partial indexes and
plans need literals. A released number never changes its meaning.

Advisory locks
--------------
Changes of what a lock guards take it exclusively. Users of what it guards take it shared and read in a later statement, so that no
claim or enqueue in flight outruns a change. The first nine are held until the transaction ends. They are taken before all row
locks, in the order of this table, and several of one class in ascending order of keys. Row locks follow: tenant, handlers, queues,
schedules, ledger rows, tasks, batches (each by id), idempotency keys, unique keys (each sorted).
A claim that goes with outcomes follows their row locks. It never waits: it tries its locks, and skips rows that are locked.
A page of follow-ups takes GROUP last: its group is its lease token, under which nothing else is enqueued.
call_back_v1 takes QUEUE after the rows of tasks (it says why).

class        key      taken shared by                            taken exclusively by
GROUP        hash     -                                          an enqueue: a repeat of its group then finds the receipt
DEFINITIONS  tenant   -                                          a new handler, queue, schedule or source: counts, then adds
TENANT       tenant   claim                                      a change of the tenant's limits
HANDLER      handler  claim; a queue, schedule or task that      a change, a disabling, a deletion
                      names it (enqueue, update, retry,
                      redrive, follow-ups)
QUEUE        queue    claim, enqueue, update, retry, redrive,    a change, a pause, a deletion
                      batches, follow-ups, schedules,
                      callbacks
LIMITS       tenant   a queue, handler, schedule or task that    a change or deletion of a named limit
                      names limits
BATCH        hash     whoever adds tasks to the batch            sealing, cancelling, the last sweep of a cancelled batch
DEPTH        queue    -                                          an enqueue to a queue with max_depth: counts, then adds
GATE         tenant   -                                          a claim of tasks that limits or keys hold back, which tries for it;
                                                                 a change of limits, keys or rates

CALLER       hash     sluice.enqueue, for the queues, handlers   a deletion of a queue, a handler or a limit, which tries for it,
                      and limits that its tasks name           because the caller's transaction may last
MAKE_PARTITIONS       -                                          making days of history, in a transaction of its own; or last,
                                                                 a month for a row of the audit that finds none
DROP_PARTITIONS       -                                          dropping them; a session's lock, tried and never waited for
MIGRATION             -                                          a start that migrates; a session's lock, polled
ROOM                  -                                          a start that measures the server's connections; a session's lock
"""

import re
from enum import IntEnum


class TaskState(IntEnum):
    """Task states. Those below SUCCEEDED are live, in `tasks`; the others have ended, in `task_history`."""

    READY = 0
    RUNNING = 1
    SCHEDULED = 2
    SUCCEEDED = 3
    DEAD = 4
    CANCELLED = 5


class Lock(IntEnum):
    MIGRATION = 5157000
    TENANT = 5157001
    HANDLER = 5157002
    QUEUE = 5157003
    MAKE_PARTITIONS = 5157004
    DEPTH = 5157005
    GROUP = 5157006
    BATCH = 5157007
    DEFINITIONS = 5157008
    ROOM = 5157009
    DROP_PARTITIONS = 5157010
    GATE = 5157011
    LIMITS = 5157012
    CALLER = 5157013


_NUMBERS = {
    f"{prefix}_{number.name.lower()}": str(int(number))
    for prefix, kind in (("state", TaskState), ("lock", Lock))
    for number in kind
}
_NAME = re.compile(r"(?<![:\w]):((?:state|lock)_\w+)")


def named(sql: str) -> str:
    """Replace the names in `sql` with their numbers. Raises KeyError for an unknown name."""
    return _NAME.sub(lambda found: _NUMBERS[found[1]], sql)
