"""Actions on many tasks: cancel, redrive, retry and others, by filter.

Generated from openapi/openapi.json by `make openapi`.
"""

from typing import Literal

from sluice_client.api.blocking.group import Group
from sluice_client.api.blocking.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import ActionPreview, ActionView, ActionViewPage, FilterBody, Instant


class Actions(Group):
    def start(
        self,
        *,
        kind: Literal["cancel", "purge", "redrive", "reschedule", "retry", "set_priority"],
        filter: FilterBody,
        run_at: Instant | None = UNSET,
        priority: int | None = UNSET,
        rate_per_second: float | None = UNSET,
        dry_run: bool = UNSET,
        reason: str | None = UNSET,
        idempotency_key: str | None = UNSET,
    ) -> ActionView | ActionPreview:
        """Start an action on all tasks that match a filter now, or with `dry_run` count them.

        The tasks are changed in chunks, oldest first, each at most once, even when replicas crash. Tasks enqueued
        later are left alone. With an `Idempotency-Key` the request may be repeated: an API key starts one action
        under it, and a repeat returns that one.

        - `run_at`: Of `reschedule`: when the tasks are to run.
        - `priority`: Of `set_priority`.
        - `rate_per_second`: Act on at most so many tasks per second.
        - `dry_run`: Only count the matching tasks, and show some. Default: `False`.
        - `reason`: Why, for whoever reads it later.
        - `idempotency_key`: Quoted or bare; the key starts one action, however often it is sent.

        Refused with `idempotency_mismatch` (422).
        """
        body = given(
            {
                "kind": kind,
                "filter": filter,
                "run_at": run_at,
                "priority": priority,
                "rate_per_second": rate_per_second,
                "dry_run": dry_run,
                "reason": reason,
            }
        )
        view: ActionView | ActionPreview = self._ask(
            "POST",
            "/actions",
            body=body,
            headers={"idempotency-key": idempotency_key},
            repeatable=bool(idempotency_key),
        )
        return view

    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[ActionView, ActionViewPage]:
        """List actions, newest first. They are kept for 30 days after their end.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/actions", {"limit": limit, "cursor": cursor})

    def get(self, action_id: str) -> ActionView:
        """Read an action and its progress.

        - `action_id`: A UUID.

        Refused with `action_not_found` (404).
        """
        view: ActionView = self._ask("GET", f"/actions/{segment(action_id)}")
        return view

    def cancel(self, action_id: str) -> ActionView:
        """End an action early. What it has done stays done; once answered, it does nothing more.

        - `action_id`: A UUID.

        Refused with `action_not_found` (404).
        """
        view: ActionView = self._ask("POST", f"/actions/{segment(action_id)}/cancel")
        return view
