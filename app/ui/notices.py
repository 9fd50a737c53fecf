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
    "purged": Notice("Purged: {n} cancelled."),
    "redriven": Notice("Redriven: {n} ready again."),
    "task-cancelled": Notice("Cancelled."),
    "task-retried": Notice("Ready again, with all attempts available."),
}
