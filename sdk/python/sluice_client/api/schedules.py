"""Schedules.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sluice_client.api.group import Group
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import (
    Backfilled,
    CatchUp,
    Instant,
    LimitUse,
    OnCompleteBody,
    Preview,
    RunOut,
    RunOutPage,
    ScheduleView,
    ScheduleViewPage,
    TargetBody,
    WhyScheduleOut,
)


class Schedules(Group):
    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[ScheduleView, ScheduleViewPage]:
        """List schedules, by name.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/schedules", {"limit": limit, "cursor": cursor})

    async def preview_definition(
        self,
        *,
        cron: str | None = UNSET,
        every_seconds: float | None = UNSET,
        phase_seconds: float = UNSET,
        seconds: bool = UNSET,
        timezone: str = UNSET,
        type: str | None = UNSET,
        priority: int = UNSET,
        retry: Mapping[str, Any] | None = UNSET,
        timeout_seconds: float | None = UNSET,
        handler: str | None = UNSET,
        key: str | None = UNSET,
        dst: Literal["once", "skip", "twice"] = UNSET,
        overlap: Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] = UNSET,
        catch_up: CatchUp = UNSET,
        jitter_seconds: float = UNSET,
        max_runs: int | None = UNSET,
        pause_after_failures: int | None = UNSET,
        queue: str = UNSET,
        payload: Any = UNSET,
        headers: Mapping[str, str] | None = UNSET,
        tags: Sequence[str] | None = UNSET,
        target: TargetBody | None = UNSET,
        limits: Sequence[LimitUse] | None = UNSET,
        at: Instant | None = UNSET,
        start_at: Instant | None = UNSET,
        end_at: Instant | None = UNSET,
        on_complete: OnCompleteBody | None = UNSET,
        count: int = UNSET,
        after: Instant | None = UNSET,
    ) -> Preview:
        """Preview the next times of a definition without saving it. Queue and payload are optional.

        - `cron`: Five fields as Debian reads them, `@daily` …, or `every 15 minutes`.
        - `phase_seconds`: Times are epoch + n x every + phase. Default: `0.0`.
        - `seconds`: `cron` may have six fields, the first one seconds. Default: `False`.
        - `timezone`: An IANA zone. Default: `UTC`.
        - `priority`: Default: `0`.
        - `key`: Of the tasks that it starts.
        - `dst`: Default: `once`.
        - `overlap`: Default: `skip`.
        - `catch_up`: Default: `{'window_seconds': None, 'mode': 'latest'}`.
        - `jitter_seconds`: Default: `0.0`.
        - `pause_after_failures`: So many failed runs in a row pause it.
        - `queue`: 1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit Default: `preview`.
        - `payload`: Any JSON (I-JSON, at most 128 levels deep).
        - `limits`: Named limits that the tasks take that it starts.
        - `count`: Default: `10`.
        """
        body = given(
            {
                "cron": cron,
                "every_seconds": every_seconds,
                "phase_seconds": phase_seconds,
                "seconds": seconds,
                "timezone": timezone,
                "type": type,
                "priority": priority,
                "retry": retry,
                "timeout_seconds": timeout_seconds,
                "handler": handler,
                "key": key,
                "dst": dst,
                "overlap": overlap,
                "catch_up": catch_up,
                "jitter_seconds": jitter_seconds,
                "max_runs": max_runs,
                "pause_after_failures": pause_after_failures,
                "queue": queue,
                "payload": payload,
                "headers": headers,
                "tags": tags,
                "target": target,
                "limits": limits,
                "at": at,
                "start_at": start_at,
                "end_at": end_at,
                "on_complete": on_complete,
                "count": count,
                "after": after,
            }
        )
        view: Preview = await self._ask("POST", "/schedules/preview", body=body)
        return view

    async def put(
        self,
        name: str,
        *,
        queue: str,
        payload: Any,
        cron: str | None = UNSET,
        every_seconds: float | None = UNSET,
        phase_seconds: float = UNSET,
        seconds: bool = UNSET,
        timezone: str = UNSET,
        type: str | None = UNSET,
        priority: int = UNSET,
        retry: Mapping[str, Any] | None = UNSET,
        timeout_seconds: float | None = UNSET,
        handler: str | None = UNSET,
        key: str | None = UNSET,
        dst: Literal["once", "skip", "twice"] = UNSET,
        overlap: Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] = UNSET,
        catch_up: CatchUp = UNSET,
        jitter_seconds: float = UNSET,
        max_runs: int | None = UNSET,
        pause_after_failures: int | None = UNSET,
        headers: Mapping[str, str] | None = UNSET,
        tags: Sequence[str] | None = UNSET,
        target: TargetBody | None = UNSET,
        limits: Sequence[LimitUse] | None = UNSET,
        at: Instant | None = UNSET,
        start_at: Instant | None = UNSET,
        end_at: Instant | None = UNSET,
        on_complete: OnCompleteBody | None = UNSET,
        if_match: str | None = UNSET,
        if_none_match: str | None = UNSET,
    ) -> ScheduleView:
        """Create or replace a schedule. Absent fields get their defaults; a pause is kept. Only later times fire.

        - `queue`: 1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit
        - `payload`: Any JSON (I-JSON, at most 128 levels deep).
        - `cron`: Five fields as Debian reads them, `@daily` …, or `every 15 minutes`.
        - `phase_seconds`: Times are epoch + n x every + phase. Default: `0.0`.
        - `seconds`: `cron` may have six fields, the first one seconds. Default: `False`.
        - `timezone`: An IANA zone. Default: `UTC`.
        - `priority`: Default: `0`.
        - `key`: Of the tasks that it starts.
        - `dst`: Default: `once`.
        - `overlap`: Default: `skip`.
        - `catch_up`: Default: `{'window_seconds': None, 'mode': 'latest'}`.
        - `jitter_seconds`: Default: `0.0`.
        - `pause_after_failures`: So many failed runs in a row pause it.
        - `limits`: Named limits that the tasks take that it starts.
        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `etag_mismatch` (412), `egress_denied` (422), `payload_schema_mismatch` (422).
        """
        body = given(
            {
                "queue": queue,
                "payload": payload,
                "cron": cron,
                "every_seconds": every_seconds,
                "phase_seconds": phase_seconds,
                "seconds": seconds,
                "timezone": timezone,
                "type": type,
                "priority": priority,
                "retry": retry,
                "timeout_seconds": timeout_seconds,
                "handler": handler,
                "key": key,
                "dst": dst,
                "overlap": overlap,
                "catch_up": catch_up,
                "jitter_seconds": jitter_seconds,
                "max_runs": max_runs,
                "pause_after_failures": pause_after_failures,
                "headers": headers,
                "tags": tags,
                "target": target,
                "limits": limits,
                "at": at,
                "start_at": start_at,
                "end_at": end_at,
                "on_complete": on_complete,
            }
        )
        view: ScheduleView = await self._ask(
            "PUT",
            f"/schedules/{segment(name)}",
            body=body,
            headers={"If-Match": if_match, "If-None-Match": if_none_match},
        )
        return view

    async def get(self, name: str) -> ScheduleView:
        """Read a schedule, with its next five times and a description in plain English.

        Refused with `schedule_not_found` (404).
        """
        view: ScheduleView = await self._ask("GET", f"/schedules/{segment(name)}")
        return view

    async def delete(self, name: str, *, if_match: str | None = UNSET, if_none_match: str | None = UNSET) -> None:
        """Delete a schedule: unfinished runs continue, but nothing new starts.

        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `schedule_not_found` (404), `etag_mismatch` (412).
        """
        await self._ask(
            "DELETE", f"/schedules/{segment(name)}", headers={"If-Match": if_match, "If-None-Match": if_none_match}
        )

    async def backfill(
        self,
        name: str,
        *,
        from_: Instant,
        to: Instant,
        overlap: Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] | None = UNSET,
        rerun: bool = UNSET,
    ) -> Backfilled:
        """Run the times in a window that have no run yet, at most 10,000.

        - `to`: Exclusive; must not be in the future.
        - `overlap`: Overrides the schedule's.
        - `rerun`: Also run times that have a run already: once more each, in a row of its own. Default: `False`.

        Refused with `schedule_not_found` (404).
        """
        body = given({"from": from_, "to": to, "overlap": overlap, "rerun": rerun})
        view: Backfilled = await self._ask("POST", f"/schedules/{segment(name)}/backfill", body=body)
        return view

    def history(
        self,
        name: str,
        *,
        outcome: Literal[
            "running",
            "waiting",
            "ran_ok",
            "ran_failed",
            "cancelled",
            "skipped_overlap",
            "missed",
            "superseded",
            "paused",
            "dropped",
        ]
        | None = UNSET,
        from_: Instant | None = UNSET,
        to: Instant | None = UNSET,
        limit: int = 200,
        cursor: str | None = UNSET,
    ) -> Pages[RunOut, RunOutPage]:
        """List a schedule's ledger, newest first. Every nominal time is in exactly one row.

        With `outcome`, a page may have fewer rows than `limit`, or none, although there are more: follow
        `next_cursor` until it is null.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.

        Refused with `schedule_not_found` (404).
        """
        return Pages(
            self._transport,
            f"/schedules/{segment(name)}/history",
            {"outcome": outcome, "from": from_, "to": to, "limit": limit, "cursor": cursor},
        )

    async def pause(self, name: str) -> ScheduleView:
        """Pause a schedule: nothing starts, and times that pass are recorded as paused.

        Refused with `schedule_not_found` (404).
        """
        view: ScheduleView = await self._ask("POST", f"/schedules/{segment(name)}/pause")
        return view

    async def preview(self, name: str, *, count: int | None = UNSET, after: Instant | None = UNSET) -> Preview:
        """Preview the next times of a schedule.

        - `count`: Default: `10`.

        Refused with `schedule_not_found` (404).
        """
        view: Preview = await self._ask(
            "GET", f"/schedules/{segment(name)}/preview", params={"count": count, "after": after}
        )
        return view

    async def resume(self, name: str) -> ScheduleView:
        """Resume a paused schedule from the next time on.

        Refused with `schedule_not_found` (404).
        """
        view: ScheduleView = await self._ask("POST", f"/schedules/{segment(name)}/resume")
        return view

    async def trigger(
        self,
        name: str,
        *,
        payload: Any = UNSET,
        overlap: Literal["allow_all", "buffer_all", "buffer_one", "cancel_other", "skip"] | None = UNSET,
    ) -> RunOut:
        """Start a run now, even while paused. Returns its ledger row.

        - `payload`: Any JSON (I-JSON, at most 128 levels deep). Overrides the schedule's.
        - `overlap`: Overrides the schedule's.

        Refused with `schedule_not_found` (404), `payload_schema_mismatch` (422).
        """
        body = given({"payload": payload, "overlap": overlap})
        view: RunOut = await self._ask("POST", f"/schedules/{segment(name)}/trigger", body=body or None)
        return view

    async def why(self, name: str, *, at: Instant | None = UNSET) -> WhyScheduleOut:
        """Say why a schedule did or did not fire at an instant; without `at`, why it did not fire last, and when it
        fires next.

        Refused with `schedule_not_found` (404).
        """
        view: WhyScheduleOut = await self._ask("GET", f"/schedules/{segment(name)}/why", params={"at": at})
        return view
