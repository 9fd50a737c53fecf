"""What a page says after something was done. The address carries only the name of the sentence, never its text."""

from dataclasses import dataclass

from app.domain.plurals import counted


@dataclass(frozen=True, slots=True)
class Notice:
    one: str
    """`{n}` stands for a number of tasks."""

    def words(self, count: int) -> str:
        return self.one.format(n=counted(count, "task"))


NOTICES = {
    "queue-paused": Notice("Paused. Tasks are accepted, but none starts."),
    "queue-resumed": Notice("Resumed. Tasks start again."),
    "queue-saved": Notice("Saved. It holds from now on."),
    "task-saved": Notice("Saved."),
    "task-copied": Notice("Enqueued. This is the copy."),
    "redriven": Notice("Redriven: {n} ready again."),
    "schedule-paused": Notice("Paused. Times that pass are recorded as paused."),
    "schedule-resumed": Notice("Resumed, from the next time on."),
    "triggered": Notice("Started a run."),
    "backfilled": Notice("The times of that window run now."),
    "batch-cancelled": Notice("Cancelled. Its unfinished tasks are being cancelled."),
    "source-paused": Notice("Paused. No further message is received."),
    "source-resumed": Notice("Resumed. Messages are received again."),
    "handler-enabled": Notice("Enabled. Its tasks are delivered again."),
    "handler-disabled": Notice("Disabled. Its tasks wait."),
    "limit-paused": Notice("Paused. No task that takes it starts."),
    "limit-resumed": Notice("Resumed."),
    "action-started": Notice("Started. It goes on by itself; reload to see how far it is."),
    "action-cancelled": Notice("Stopped. What was done stays done."),
    "key-revoked": Notice("Revoked. No replica accepts it any more."),
    "task-cancelled": Notice("Cancelled."),
    "task-retried": Notice("Ready again, with all attempts available."),
}
