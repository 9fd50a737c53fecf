"""Tasks.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sluice_client.api.group import Group
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import (
    AttemptView,
    AttemptViewPage,
    BulkOut,
    Instant,
    LimitUse,
    Reason,
    State,
    TargetBody,
    TaskBody,
    TaskCallbacks,
    TaskView,
    TaskViewPage,
    WhyTask,
)
from sluice_client.retrying import is_keyed


class Tasks(Group):
    async def enqueue(
        self,
        queue: str,
        *,
        payload: Any = UNSET,
        payload_base64: str | None = UNSET,
        content_type: str | None = UNSET,
        type: str | None = UNSET,
        delay_seconds: float | None = UNSET,
        run_at: Instant | None = UNSET,
        ttl_seconds: float | None = UNSET,
        expires_at: Instant | None = UNSET,
        priority: int = UNSET,
        idempotency_key: str | None = UNSET,
        unique_key: str | None = UNSET,
        on_duplicate: Literal["keep", "postpone", "replace"] | None = UNSET,
        debounce_max_seconds: float | None = UNSET,
        retry: Mapping[str, Any] | None = UNSET,
        timeout_seconds: float | None = UNSET,
        correlation_id: str | None = UNSET,
        headers: Mapping[str, str] | None = UNSET,
        tags: Sequence[str] | None = UNSET,
        handler: str | None = UNSET,
        target: TargetBody | None = UNSET,
        key: str | None = UNSET,
        limits: Sequence[LimitUse] | None = UNSET,
        callbacks: TaskCallbacks | None = UNSET,
        traceparent: str | None = UNSET,
    ) -> TaskView:
        """Enqueue a task. Acknowledged after commit.

        - `payload`: Any JSON, including null. It reaches the handler byte for byte. Required without
          `payload_base64`.
        - `payload_base64`: Instead of `payload`: any bytes, as base64.
        - `content_type`: What the payload is delivered as. Beside `payload`, it is JSON and the default
          `application/json`; beside `payload_base64`, the default is `application/octet-stream`.
        - `delay_seconds`: Cannot be combined with `run_at`.
        - `run_at`: Cannot be combined with `delay_seconds`; a time in the past means now.
        - `ttl_seconds`: Cannot be combined with `expires_at`.
        - `expires_at`: Cannot be combined with `ttl_seconds`. Limits when an attempt may start, not how long it
          runs.
        - `priority`: Higher priorities always start first. Default: `0`.
        - `idempotency_key`: Can also be sent in the header `Idempotency-Key`.
        - `unique_key`: At most one unfinished task per queue can have it.
        - `on_duplicate`: What happens if a waiting task has the `unique_key`. `keep`: nothing. `replace`: it
          takes this payload and these options. `postpone`: its `run_at` moves too, never to an earlier time. A
          running task is kept. Default: `keep`.
        - `debounce_max_seconds`: Only with `postpone`: how long after its creation a task can be postponed to at
          most.
        - `retry`: Partial; merged over the queue's.
        - `timeout_seconds`: null: the queue's, else the handler's.
        - `headers`: Sent with every delivery of this task.
        - `handler`: Overrides the queue's handler, on a queue that has one.
        - `target`: Where and how to deliver it, as far as the handler's `targets` allows.
        - `key`: Whose task it is: the keys of a queue share it fairly.
        - `limits`: Named limits that it takes, beside those of its queue and handler.
        - `callbacks`: Replace the queue's, state by state; null for a state: none is enqueued.
        - `traceparent`: W3C Trace Context, passed on to the handler.

        Refused with `queue_not_found` (404), `idempotency_mismatch` (422), `egress_denied` (422), `queue_full`
        (429), `key_full` (429).
        """
        body = given(
            {
                "payload": payload,
                "payload_base64": payload_base64,
                "content_type": content_type,
                "type": type,
                "delay_seconds": delay_seconds,
                "run_at": run_at,
                "ttl_seconds": ttl_seconds,
                "expires_at": expires_at,
                "priority": priority,
                "idempotency_key": idempotency_key,
                "unique_key": unique_key,
                "on_duplicate": on_duplicate,
                "debounce_max_seconds": debounce_max_seconds,
                "retry": retry,
                "timeout_seconds": timeout_seconds,
                "correlation_id": correlation_id,
                "headers": headers,
                "tags": tags,
                "handler": handler,
                "target": target,
                "key": key,
                "limits": limits,
                "callbacks": callbacks,
            }
        )
        view: TaskView = await self._ask(
            "POST",
            f"/queues/{segment(queue)}/tasks",
            body=body,
            headers={"traceparent": traceparent},
            repeatable=is_keyed(body),
        )
        return view

    async def enqueue_many(
        self, queue: str, *, tasks: Sequence[TaskBody], atomic: bool = UNSET, traceparent: str | None = UNSET
    ) -> BulkOut:
        """Enqueue up to 10,000 tasks, in a body of at most 32 MiB. The answer has a result per task, in order.

        - `atomic`: All or nothing: if any task is refused, the answer is 422 and nothing is stored. Default:
          `False`.
        - `traceparent`: W3C Trace Context, passed on to the handler.

        Refused with `queue_not_found` (404).
        """
        body = given({"tasks": tasks, "atomic": atomic})
        view: BulkOut = await self._ask(
            "POST",
            f"/queues/{segment(queue)}/tasks/bulk",
            body=body,
            headers={"traceparent": traceparent},
            repeatable=is_keyed(body),
        )
        return view

    def list(
        self,
        *,
        include: Literal["payload"] | None = UNSET,
        limit: int = 200,
        cursor: str | None = UNSET,
        queue: str | None = UNSET,
        state: State | None = UNSET,
        reason: Reason | None = UNSET,
        type: str | None = UNSET,
        tag: str | None = UNSET,
        handler: str | None = UNSET,
        correlation_id: str | None = UNSET,
        schedule: str | None = UNSET,
        batch: str | None = UNSET,
        ended_from: Instant | None = UNSET,
        ended_to: Instant | None = UNSET,
    ) -> Pages[TaskView, TaskViewPage]:
        """List tasks, newest first.

        A filter that matches little does not make a page slower. Instead, the page may have fewer items than
        `limit`, or none, although there are more: follow `next_cursor` until it is null.

        - `include`: `payload`: include payloads.
        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(
            self._transport,
            "/tasks",
            {
                "include": include,
                "limit": limit,
                "cursor": cursor,
                "queue": queue,
                "state": state,
                "reason": reason,
                "type": type,
                "tag": tag,
                "handler": handler,
                "correlation_id": correlation_id,
                "schedule": schedule,
                "batch": batch,
                "ended_from": ended_from,
                "ended_to": ended_to,
            },
        )

    async def get(self, task_id: str, *, wait_seconds: float | None = UNSET) -> TaskView:
        """Read a task, at once or, with `wait_seconds`, when it has ended.

        - `task_id`: A UUID.
        - `wait_seconds`: How long to wait for the task to end; afterwards it is returned as it is. Default: `0`.

        Refused with `task_not_found` (404).
        """
        view: TaskView = await self._ask(
            "GET", f"/tasks/{segment(task_id)}", params={"wait_seconds": wait_seconds}, wait_seconds=wait_seconds
        )
        return view

    async def update(
        self,
        task_id: str,
        *,
        payload: Any = UNSET,
        payload_base64: str = UNSET,
        content_type: str | None = UNSET,
        type: str | None = UNSET,
        run_at: Instant | None = UNSET,
        delay_seconds: float | None = UNSET,
        expires_at: Instant | None = UNSET,
        priority: int | None = UNSET,
        retry: Mapping[str, Any] | None = UNSET,
        timeout_seconds: float | None = UNSET,
        headers: Mapping[str, str | None] | None = UNSET,
        tags: Sequence[str] | None = UNSET,
        correlation_id: str | None = UNSET,
        handler: str | None = UNSET,
        target: TargetBody | None = UNSET,
        key: str | None = UNSET,
        limits: Sequence[LimitUse] | None = UNSET,
    ) -> TaskView:
        """Change a waiting task with a merge patch: absent fields are kept, null resets to the default, the payload
        is replaced.

        - `task_id`: A UUID.
        - `payload`: Replaced as a whole, never merged; null is a valid payload.
        - `payload_base64`: Replaces the payload by bytes.
        - `content_type`: A payload that changes its form gets the default of the new one.
        - `run_at`: null: now. Cannot be combined with `delay_seconds`.
        - `delay_seconds`: From now. Cannot be combined with `run_at`.
        - `retry`: Merged field by field; a backoff is replaced as a whole.
        - `headers`: Merged by name; null removes a header.
        - `handler`: null: the queue's.
        - `target`: Replaced as a whole.
        - `limits`: Replaced as a whole.

        Refused with `task_not_found` (404), `task_not_editable` (409), `task_ended` (409), `egress_denied` (422).
        """
        body = given(
            {
                "payload": payload,
                "payload_base64": payload_base64,
                "content_type": content_type,
                "type": type,
                "run_at": run_at,
                "delay_seconds": delay_seconds,
                "expires_at": expires_at,
                "priority": priority,
                "retry": retry,
                "timeout_seconds": timeout_seconds,
                "headers": headers,
                "tags": tags,
                "correlation_id": correlation_id,
                "handler": handler,
                "target": target,
                "key": key,
                "limits": limits,
            }
        )
        view: TaskView = await self._ask("PATCH", f"/tasks/{segment(task_id)}", body=body)
        return view

    def attempts(
        self, task_id: str, *, limit: int = 200, cursor: str | None = UNSET
    ) -> Pages[AttemptView, AttemptViewPage]:
        """List a task's attempts, newest first: one per claim.

        - `task_id`: A UUID.
        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.

        Refused with `task_not_found` (404).
        """
        return Pages(self._transport, f"/tasks/{segment(task_id)}/attempts", {"limit": limit, "cursor": cursor})

    async def cancel(self, task_id: str) -> TaskView:
        """Cancel an unfinished task. A running one loses its lease at once, and its call is aborted.

        - `task_id`: A UUID.

        Refused with `task_not_found` (404), `task_ended` (409).
        """
        view: TaskView = await self._ask("POST", f"/tasks/{segment(task_id)}/cancel")
        return view

    async def retry(self, task_id: str) -> TaskView:
        """Make a dead or cancelled task ready again with all attempts available, or a scheduled one ready now.

        - `task_id`: A UUID.

        Refused with `task_not_found` (404), `task_not_editable` (409), `task_ended` (409).
        """
        view: TaskView = await self._ask("POST", f"/tasks/{segment(task_id)}/retry")
        return view

    async def why(self, task_id: str) -> WhyTask:
        """Say why a task does not start, who has it, or how it ended: everything that stands in its way, and what
        would remove it.

        - `task_id`: A UUID.

        Refused with `task_not_found` (404).
        """
        view: WhyTask = await self._ask("GET", f"/tasks/{segment(task_id)}/why")
        return view
