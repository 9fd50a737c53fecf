"""Leases: how pull workers take, renew and settle tasks, and how handlers settle those they hold.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sluice_client.api.group import Group
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import FollowUpBody, LeasedTasks, OnCompleteBody, TaskView


class Leases(Group):
    async def take(
        self, queue: str, *, max_tasks: int = UNSET, wait_seconds: float = UNSET, lease_seconds: float = UNSET
    ) -> LeasedTasks:
        """Lease tasks of a pull queue, waiting for the first if necessary. Returns none if none came in time.

        - `max_tasks`: Default: `1`.
        - `wait_seconds`: How long to wait for the first task. Default: `0`.
        - `lease_seconds`: Default: `30`.

        Refused with `queue_not_found` (404), `queue_is_push` (409).
        """
        body = given({"max_tasks": max_tasks, "wait_seconds": wait_seconds, "lease_seconds": lease_seconds})
        view: LeasedTasks = await self._ask(
            "POST", f"/queues/{segment(queue)}/leases", body=body or None, wait_seconds=wait_seconds
        )
        return view

    async def complete(
        self,
        task_id: str,
        *,
        lease_token: str,
        result: Any = UNSET,
        result_encoding: Literal["base64"] | None = UNSET,
        result_truncated: bool = UNSET,
        tasks: Sequence[FollowUpBody] = UNSET,
        next: str | None = UNSET,
        on_complete: OnCompleteBody | None = UNSET,
    ) -> TaskView:
        """End a task as succeeded and enqueue its follow-up work, if any: all of it, or none, and then the lease
        stays valid.

        Repeating it with the same token returns the first answer and writes nothing.

        - `task_id`: A UUID.
        - `lease_token`: The token of the lease.
        - `result`: Any JSON (I-JSON, at most 128 levels deep).
        - `result_encoding`: `base64`: the result is binary data in base64, and is shown as such.
        - `result_truncated`: The result was truncated; shown with the task. Default: `False`.
        - `tasks`: Enqueued together with the completion.
        - `next`: Also enqueue this task again with this cursor, as a continuation.
        - `on_complete`: Enqueued when all tasks of the batch have ended.

        Refused with `lease_lost` (409), `task_cancelled` (409), `queue_full` (429), `key_full` (429).
        """
        body = given(
            {
                "result": result,
                "result_encoding": result_encoding,
                "result_truncated": result_truncated,
                "tasks": tasks,
                "next": next,
                "on_complete": on_complete,
            }
        )
        view: TaskView = await self._ask(
            "POST",
            f"/tasks/{segment(task_id)}/complete",
            body=body or None,
            headers={"sluice-lease-token": lease_token},
            repeatable=True,
        )
        return view

    async def fail(
        self, task_id: str, *, error: str, lease_token: str, retryable: bool = UNSET, retry_after_seconds: float = UNSET
    ) -> TaskView:
        """End an attempt as failed: the task is retried later, or is dead.

        - `task_id`: A UUID.
        - `lease_token`: The token of the lease.
        - `retryable`: false: the task is dead, with reason `stopped_by_worker`. Default: `True`.
        - `retry_after_seconds`: Minimum delay before the next attempt, up to the queue's retry_after_max_seconds.
          Default: `0`.

        Refused with `lease_lost` (409), `task_cancelled` (409).
        """
        body = given({"error": error, "retryable": retryable, "retry_after_seconds": retry_after_seconds})
        view: TaskView = await self._ask(
            "POST",
            f"/tasks/{segment(task_id)}/fail",
            body=body,
            headers={"sluice-lease-token": lease_token},
            repeatable=True,
        )
        return view

    async def release(self, task_id: str, *, lease_token: str) -> TaskView:
        """Return a task without working on it: it is ready at once, and the attempt does not count.

        - `task_id`: A UUID.
        - `lease_token`: The token of the lease.

        Refused with `lease_lost` (409), `task_cancelled` (409).
        """
        view: TaskView = await self._ask(
            "POST", f"/tasks/{segment(task_id)}/release", headers={"sluice-lease-token": lease_token}, repeatable=True
        )
        return view

    async def renew(self, task_id: str, *, seconds: float, lease_token: str, progress: Any = UNSET) -> TaskView:
        """Extend or shorten a lease, and optionally report progress.

        - `task_id`: A UUID.
        - `seconds`: From now; may be earlier than the present end.
        - `lease_token`: The token of the lease.
        - `progress`: Any JSON (I-JSON, at most 128 levels deep).

        Refused with `lease_lost` (409), `task_cancelled` (409).
        """
        body = given({"seconds": seconds, "progress": progress})
        view: TaskView = await self._ask(
            "POST",
            f"/tasks/{segment(task_id)}/renew",
            body=body,
            headers={"sluice-lease-token": lease_token},
            repeatable=True,
        )
        return view
