"""Limits: those of the whole tenant, and named ones that queues, handlers, schedules and tasks share.

Generated from openapi/openapi.json by `make openapi`.
"""

from typing import Literal

from sluice_client.api.group import Group
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import KeyOut, KeyOutPage, LimitOut, LimitsOut, Rate, TenantLimitsOut


class Limits(Group):
    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[LimitOut, LimitsOut]:
        """Read the tenant's limits over all queues, and list the named ones, by name.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/limits", {"limit": limit, "cursor": cursor})

    async def put_total(self, *, max_concurrency: int | None = UNSET, rate: Rate | None = UNSET) -> TenantLimitsOut:
        """Change the tenant's limits over all queues. Once answered, nothing is admitted above them.

        - `max_concurrency`: null: no limit over all queues.
        - `rate`: How many tasks of all queues start in a while; null: any number.
        """
        body = given({"max_concurrency": max_concurrency, "rate": rate})
        view: TenantLimitsOut = await self._ask("PUT", "/limits", body=body)
        return view

    async def put(
        self,
        name: str,
        *,
        max_concurrency: int | None = UNSET,
        rate: Rate | None = UNSET,
        keyed: bool = UNSET,
        description: str | None = UNSET,
        if_match: str | None = UNSET,
        if_none_match: str | None = UNSET,
    ) -> LimitOut:
        """Create or replace a named limit. Absent fields get their defaults; a pause and the values of single keys
        are kept.

        Once answered, nothing is admitted above it. `keyed` cannot change while something names the limit.

        - `keyed`: It holds for each key by itself. Cannot change while the limit is in use. Default: `False`.
        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `limit_in_use` (409), `etag_mismatch` (412).
        """
        body = given({"max_concurrency": max_concurrency, "rate": rate, "keyed": keyed, "description": description})
        view: LimitOut = await self._ask(
            "PUT", f"/limits/{segment(name)}", body=body, headers={"If-Match": if_match, "If-None-Match": if_none_match}
        )
        return view

    async def get(self, name: str) -> LimitOut:
        """Read a named limit, and what is taken of it now.

        Refused with `limit_not_found` (404).
        """
        view: LimitOut = await self._ask("GET", f"/limits/{segment(name)}")
        return view

    async def delete(self, name: str, *, if_match: str | None = UNSET, if_none_match: str | None = UNSET) -> None:
        """Delete a limit that no queue, handler, schedule or unfinished task names.

        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `limit_not_found` (404), `limit_in_use` (409), `etag_mismatch` (412).
        """
        await self._ask(
            "DELETE", f"/limits/{segment(name)}", headers={"If-Match": if_match, "If-None-Match": if_none_match}
        )

    def keys(
        self,
        name: str,
        *,
        state: Literal["full", "waiting"] | None = UNSET,
        limit: int = 200,
        cursor: str | None = UNSET,
    ) -> Pages[KeyOut, KeyOutPage]:
        """List the keys of a limit that are held, waited for or overridden, in byte order.

        - `state`: `full`: only keys without room, or paused; `waiting`: only keys that something waits for.
        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.

        Refused with `limit_not_found` (404).
        """
        return Pages(
            self._transport, f"/limits/{segment(name)}/keys", {"state": state, "limit": limit, "cursor": cursor}
        )

    async def get_key(self, name: str, key: str) -> KeyOut:
        """Read one key of a limit, and what is taken of it now.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `limit_not_found` (404).
        """
        view: KeyOut = await self._ask("GET", f"/limits/{segment(name)}/keys/{segment(key)}")
        return view

    async def put_key(
        self, name: str, key: str, *, max_concurrency: int | None = UNSET, rate: Rate | None = UNSET
    ) -> KeyOut:
        """Set what holds for one key in place of the limit's own values. Absent fields get their defaults; a pause
        is kept.

        - `key`: 1-128 bytes of UTF-8.
        - `max_concurrency`: null: the limit's.
        - `rate`: null: the limit's.

        Refused with `limit_not_found` (404).
        """
        body = given({"max_concurrency": max_concurrency, "rate": rate})
        view: KeyOut = await self._ask("PUT", f"/limits/{segment(name)}/keys/{segment(key)}", body=body)
        return view

    async def delete_key(self, name: str, key: str) -> None:
        """Let the limit's own values hold for a key again, and resume it.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `limit_not_found` (404).
        """
        await self._ask("DELETE", f"/limits/{segment(name)}/keys/{segment(key)}")

    async def pause_key(self, name: str, key: str) -> KeyOut:
        """Pause one key of a limit. Once answered, no task that takes it starts.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `limit_not_found` (404).
        """
        view: KeyOut = await self._ask("POST", f"/limits/{segment(name)}/keys/{segment(key)}/pause")
        return view

    async def resume_key(self, name: str, key: str) -> KeyOut:
        """Resume a paused key.

        - `key`: 1-128 bytes of UTF-8.

        Refused with `limit_not_found` (404).
        """
        view: KeyOut = await self._ask("POST", f"/limits/{segment(name)}/keys/{segment(key)}/resume")
        return view

    async def pause(self, name: str) -> LimitOut:
        """Pause a limit. Once answered, no task that takes it starts.

        Refused with `limit_not_found` (404).
        """
        view: LimitOut = await self._ask("POST", f"/limits/{segment(name)}/pause")
        return view

    async def resume(self, name: str) -> LimitOut:
        """Resume a paused limit.

        Refused with `limit_not_found` (404).
        """
        view: LimitOut = await self._ask("POST", f"/limits/{segment(name)}/resume")
        return view
