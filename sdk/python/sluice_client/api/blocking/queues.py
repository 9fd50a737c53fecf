"""Queues.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sluice_client.api.blocking.group import Group
from sluice_client.api.blocking.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import (
    Callbacks,
    Instant,
    LimitUse,
    PurgedOut,
    QueueErrors,
    QueueKey,
    QueueKeyOut,
    QueueOut,
    QueueOutPage,
    QueueStatsOut,
    Rate,
    RedrivenOut,
    Retention,
    Series,
    WhyQueue,
)


class Queues(Group):
    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[QueueOut, QueueOutPage]:
        """List queues, by name.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/queues", {"limit": limit, "cursor": cursor})

    def put(
        self,
        name: str,
        *,
        handler: str | None = UNSET,
        max_concurrency: int | None = UNSET,
        max_depth: int | None = UNSET,
        rate: Rate | None = UNSET,
        key: QueueKey | None = UNSET,
        timeout_seconds: float | None = UNSET,
        idempotency_seconds: float = UNSET,
        retention: Retention = UNSET,
        callbacks: Callbacks = UNSET,
        encrypt: bool = UNSET,
        description: str | None = UNSET,
        retry: Mapping[str, Any] = UNSET,
        payload_schema: Mapping[str, Any] | bool | None = UNSET,
        limits: Sequence[str | LimitUse] = UNSET,
        if_match: str | None = UNSET,
        if_none_match: str | None = UNSET,
    ) -> QueueOut:
        """Create or replace a queue. Absent fields get their defaults; a pause is kept.

        - `handler`: The handler that its tasks are delivered to; null: a queue for pull workers.
        - `max_depth`: Exact limit on scheduled and ready tasks.
        - `rate`: How many of its tasks start in a while.
        - `key`: What holds for each distinct key of its tasks.
        - `timeout_seconds`: null: the handler's.
        - `idempotency_seconds`: Default: `86400.0`.
        - `retention`: Default: `{'succeeded_days': 3, 'cancelled_days': 3, 'dead_days': 30}`.
        - `callbacks`: What is enqueued when a task of this queue ends, by the state it ends in. Default:
          `{'succeeded': None, 'dead': None, 'cancelled': None}`.
        - `encrypt`: Whether payload, result and excerpts of its new tasks are encrypted in the database. Default:
          `False`.
        - `retry`: Partial: absent fields keep their defaults (in a task: the queue's values).
        - `payload_schema`: Payloads are validated against it when they are enqueued; null: anything is accepted.
        - `limits`: What all tasks take: `"name"`, or an object where a key or cost is given.
        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `etag_mismatch` (412).
        """
        body = given(
            {
                "handler": handler,
                "max_concurrency": max_concurrency,
                "max_depth": max_depth,
                "rate": rate,
                "key": key,
                "timeout_seconds": timeout_seconds,
                "idempotency_seconds": idempotency_seconds,
                "retention": retention,
                "callbacks": callbacks,
                "encrypt": encrypt,
                "description": description,
                "retry": retry,
                "payload_schema": payload_schema,
                "limits": limits,
            }
        )
        view: QueueOut = self._ask(
            "PUT", f"/queues/{segment(name)}", body=body, headers={"If-Match": if_match, "If-None-Match": if_none_match}
        )
        return view

    def get(self, name: str) -> QueueOut:
        """Read a queue.

        Refused with `queue_not_found` (404).
        """
        view: QueueOut = self._ask("GET", f"/queues/{segment(name)}")
        return view

    def delete(self, name: str, *, if_match: str | None = UNSET, if_none_match: str | None = UNSET) -> None:
        """Delete a queue without unfinished tasks, schedules or pending batch completions.

        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `queue_not_found` (404), `queue_in_use` (409), `etag_mismatch` (412).
        """
        self._ask("DELETE", f"/queues/{segment(name)}", headers={"If-Match": if_match, "If-None-Match": if_none_match})

    def errors(self, name: str) -> QueueErrors:
        """List the errors of the last day by signature: what is left of their texts without ids, numbers and quoted
        parts.

        A task counts once, by its last error. `filter.error` of an action takes a signature.

        Refused with `queue_not_found` (404).
        """
        view: QueueErrors = self._ask("GET", f"/queues/{segment(name)}/errors")
        return view

    def get_key(self, name: str, key: str) -> QueueKeyOut:
        """Read one key of a queue: what holds for it, what it holds, and how many of its tasks wait.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `queue_not_found` (404).
        """
        view: QueueKeyOut = self._ask("GET", f"/queues/{segment(name)}/keys/{segment(key)}")
        return view

    def put_key(
        self,
        name: str,
        key: str,
        *,
        max_concurrency: int | None = UNSET,
        rate: Rate | None = UNSET,
        weight: int = UNSET,
    ) -> QueueKeyOut:
        """Set what holds for one key in place of the queue's `key`. Absent fields get their defaults; a pause is
        kept.

        - `key`: 1-128 bytes of UTF-8.
        - `max_concurrency`: null: the limit's.
        - `rate`: null: the limit's.
        - `weight`: Its share beside the queue's other keys, which weigh 1. Default: `1`.

        Refused with `queue_not_found` (404).
        """
        body = given({"max_concurrency": max_concurrency, "rate": rate, "weight": weight})
        view: QueueKeyOut = self._ask("PUT", f"/queues/{segment(name)}/keys/{segment(key)}", body=body)
        return view

    def pause_key(self, name: str, key: str) -> QueueKeyOut:
        """Pause one key: its tasks are accepted but not started. Once answered, none of them starts.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `queue_not_found` (404).
        """
        view: QueueKeyOut = self._ask("POST", f"/queues/{segment(name)}/keys/{segment(key)}/pause")
        return view

    def resume_key(self, name: str, key: str) -> QueueKeyOut:
        """Resume a paused key.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `queue_not_found` (404).
        """
        view: QueueKeyOut = self._ask("POST", f"/queues/{segment(name)}/keys/{segment(key)}/resume")
        return view

    def pause(self, name: str) -> QueueOut:
        """Pause a queue: tasks are accepted but not started. Once answered, nothing is claimed.

        Refused with `queue_not_found` (404).
        """
        view: QueueOut = self._ask("POST", f"/queues/{segment(name)}/pause")
        return view

    def purge(self, name: str) -> PurgedOut:
        """Cancel the queue's scheduled and ready tasks, in chunks. Running tasks and those enqueued in the meantime
        are kept.

        Refused with `queue_not_found` (404).
        """
        view: PurgedOut = self._ask("POST", f"/queues/{segment(name)}/purge")
        return view

    def redrive(
        self,
        name: str,
        *,
        reason: Literal[
            "attempts_exhausted",
            "expired",
            "fatal_status",
            "followup_too_large",
            "invalid_message",
            "pushed_back_too_long",
            "stopped_by_handler",
            "stopped_by_worker",
        ]
        | None = UNSET,
        type: str | None = UNSET,
        tag: str | None = UNSET,
        handler: str | None = UNSET,
        correlation_id: str | None = UNSET,
        ended_from: Instant | None = UNSET,
        ended_to: Instant | None = UNSET,
        limit: int = UNSET,
        dry_run: bool = UNSET,
    ) -> RedrivenOut:
        """Make up to `limit` matching dead tasks ready again, oldest first, with all attempts available.

        - `limit`: Maximum number of tasks to redrive. Default: `1000`.
        - `dry_run`: Only count the matching tasks. Default: `False`.

        Refused with `queue_not_found` (404).
        """
        body = given(
            {
                "reason": reason,
                "type": type,
                "tag": tag,
                "handler": handler,
                "correlation_id": correlation_id,
                "ended_from": ended_from,
                "ended_to": ended_to,
                "limit": limit,
                "dry_run": dry_run,
            }
        )
        view: RedrivenOut = self._ask("POST", f"/queues/{segment(name)}/redrive", body=body or None)
        return view

    def resume(self, name: str) -> QueueOut:
        """Resume a paused queue.

        Refused with `queue_not_found` (404).
        """
        view: QueueOut = self._ask("POST", f"/queues/{segment(name)}/resume")
        return view

    def series(self, name: str, *, minutes: int | None = UNSET) -> Series:
        """Read what happened to a queue in each of the last minutes.

        - `minutes`: How many minutes, with the current one. Default: `60`.

        Refused with `queue_not_found` (404).
        """
        view: Series = self._ask("GET", f"/queues/{segment(name)}/series", params={"minutes": minutes})
        return view

    def stats(self, name: str) -> QueueStatsOut:
        """Read a queue's counts by state, rates, waiting times and run times.

        Refused with `queue_not_found` (404).
        """
        view: QueueStatsOut = self._ask("GET", f"/queues/{segment(name)}/stats")
        return view

    def why(self, name: str) -> WhyQueue:
        """Say why a queue does not move: what stands in the way of the task that comes first, and what would remove
        it.

        Refused with `queue_not_found` (404).
        """
        view: WhyQueue = self._ask("GET", f"/queues/{segment(name)}/why")
        return view
