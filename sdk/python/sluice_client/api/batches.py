"""Batches: tasks whose end is awaited together.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Sequence

from sluice_client.api.group import Group
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import BatchView, BatchViewPage, FilledBatch, OnCompleteBody, RetriedBatch, TaskBody
from sluice_client.retrying import is_keyed


class Batches(Group):
    async def create(
        self,
        *,
        queue: str,
        tasks: Sequence[TaskBody] = UNSET,
        on_complete: OnCompleteBody | None = UNSET,
        sealed: bool = UNSET,
    ) -> FilledBatch:
        """Create a batch, with up to 10,000 tasks in a body of at most 32 MiB. The answer has a result per task, in
        order.

        - `queue`: The queue of all its tasks.
        - `tasks`: All tasks, or the first ones.
        - `on_complete`: Enqueued once, when all tasks of the batch have ended.
        - `sealed`: false: more tasks will be added; the batch completes only after it has been sealed. Default:
          `True`.

        Refused with `egress_denied` (422), `payload_schema_mismatch` (422).
        """
        body = given({"queue": queue, "tasks": tasks, "on_complete": on_complete, "sealed": sealed})
        view: FilledBatch = await self._ask("POST", "/batches", body=body)
        return view

    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[BatchView, BatchViewPage]:
        """List batches, newest first. If a batch has more than 1,000 scheduled tasks, the rest of them count as
        ready.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/batches", {"limit": limit, "cursor": cursor})

    async def get(self, batch_id: str) -> BatchView:
        """Read a batch and its progress.

        - `batch_id`: A UUID.

        Refused with `batch_not_found` (404).
        """
        view: BatchView = await self._ask("GET", f"/batches/{segment(batch_id)}")
        return view

    async def cancel(self, batch_id: str) -> BatchView:
        """Seal a batch and cancel its unfinished tasks. Its `on_complete` still runs.

        - `batch_id`: A UUID.

        Refused with `batch_not_found` (404).
        """
        view: BatchView = await self._ask("POST", f"/batches/{segment(batch_id)}/cancel")
        return view

    async def retry(self, batch_id: str) -> RetriedBatch:
        """Make a batch's dead tasks ready again, with all attempts available.

        - `batch_id`: A UUID.

        Refused with `batch_not_found` (404).
        """
        view: RetriedBatch = await self._ask("POST", f"/batches/{segment(batch_id)}/retry")
        return view

    async def seal(self, batch_id: str) -> BatchView:
        """Seal a batch: no more tasks can be added, and it completes when all have ended.

        - `batch_id`: A UUID.

        Refused with `batch_not_found` (404).
        """
        view: BatchView = await self._ask("POST", f"/batches/{segment(batch_id)}/seal")
        return view

    async def add(self, batch_id: str, *, tasks: Sequence[TaskBody]) -> FilledBatch:
        """Add tasks to an unsealed batch, up to 10,000 per request. The answer has a result per task, in order.

        - `batch_id`: A UUID.

        Refused with `batch_not_found` (404), `queue_not_found` (404), `batch_sealed` (409).
        """
        body = given({"tasks": tasks})
        view: FilledBatch = await self._ask(
            "POST", f"/batches/{segment(batch_id)}/tasks", body=body, repeatable=is_keyed(body)
        )
        return view
