"""Definitions as code: plan and apply.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping

from sluice_client.api.blocking.group import Group
from sluice_client.api.parameters import UNSET, given
from sluice_client.models import (
    AppliedOut,
    HandlerBody,
    LimitDefinition,
    Limits,
    PlanOut,
    QueueBody,
    ScheduleBody,
    SourceDefinition,
)


class Definitions(Group):
    def apply(
        self,
        *,
        named_limits: Mapping[str, LimitDefinition] | None = UNSET,
        handlers: Mapping[str, HandlerBody] | None = UNSET,
        queues: Mapping[str, QueueBody] | None = UNSET,
        schedules: Mapping[str, ScheduleBody] | None = UNSET,
        sources: Mapping[str, SourceDefinition] | None = UNSET,
        limits: Limits | None = UNSET,
        owner: str | None = UNSET,
        prune: bool = UNSET,
        version: str | None = UNSET,
    ) -> AppliedOut:
        """Change whatever differs from this document: limits, handlers, queues, schedules and sources, and then
        prune in reverse order.

        The whole document is validated before anything changes. Pauses and disabled handlers stay as they are. If
        someone else changes a definition in the meantime, that change is refused and the apply stops there.

        - `owner`: Who manages these definitions. Without it, existing definitions keep their owner and new ones
          have none.
        - `prune`: Delete definitions with this owner that are not in the document, in the sections that are
          present. Default: `False`.
        - `version`: Version of a plan; the apply is refused if the plan has changed since.

        Refused with `queue_in_use` (409), `handler_in_use` (409), `limit_in_use` (409), `etag_mismatch` (412),
        `egress_denied` (422), `bridge_unavailable` (422), `payload_schema_mismatch` (422).
        """
        body = given(
            {
                "named_limits": named_limits,
                "handlers": handlers,
                "queues": queues,
                "schedules": schedules,
                "sources": sources,
                "limits": limits,
                "owner": owner,
                "prune": prune,
                "version": version,
            }
        )
        view: AppliedOut = self._ask("POST", "/definitions/apply", body=body)
        return view

    def plan(
        self,
        *,
        named_limits: Mapping[str, LimitDefinition] | None = UNSET,
        handlers: Mapping[str, HandlerBody] | None = UNSET,
        queues: Mapping[str, QueueBody] | None = UNSET,
        schedules: Mapping[str, ScheduleBody] | None = UNSET,
        sources: Mapping[str, SourceDefinition] | None = UNSET,
        limits: Limits | None = UNSET,
        owner: str | None = UNSET,
        prune: bool = UNSET,
    ) -> PlanOut:
        """Return what applying this document would change, without changing anything.

        - `owner`: Who manages these definitions. Without it, existing definitions keep their owner and new ones
          have none.
        - `prune`: Delete definitions with this owner that are not in the document, in the sections that are
          present. Default: `False`.

        Refused with `egress_denied` (422), `bridge_unavailable` (422), `payload_schema_mismatch` (422).
        """
        body = given(
            {
                "named_limits": named_limits,
                "handlers": handlers,
                "queues": queues,
                "schedules": schedules,
                "sources": sources,
                "limits": limits,
                "owner": owner,
                "prune": prune,
            }
        )
        view: PlanOut = self._ask("POST", "/definitions/plan", body=body)
        return view
