"""API keys.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Sequence
from typing import Literal

from sluice_client.api.group import Group
from sluice_client.api.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import Instant, KeyIssued, KeyView, KeyViewPage


class Keys(Group):
    def list(
        self, *, tenant: str | None = UNSET, limit: int = 200, cursor: str | None = UNSET
    ) -> Pages[KeyView, KeyViewPage]:
        """List keys, newest first: of the tenant, or of all tenants with scope operate. Revoked and expired ones are
        included.

        - `tenant`: Needs scope operate for another's.
        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.

        Refused with `tenant_not_found` (404).
        """
        return Pages(self._transport, "/keys", {"tenant": tenant, "limit": limit, "cursor": cursor})

    async def create(
        self,
        *,
        tenant: str | None = UNSET,
        kind: Literal["aws", "bearer"] = UNSET,
        scope: Literal["manage", "operate", "read", "use"] = UNSET,
        queues: Sequence[str] | None = UNSET,
        payloads: bool = UNSET,
        expires_at: Instant | None = UNSET,
        description: str | None = UNSET,
    ) -> KeyIssued:
        """Create a key that reaches no further than the one it is created with. Its token is not shown again.

        - `tenant`: Whose key it is, the caller's by default. Another one needs scope operate; made if new.
        - `kind`: `bearer`: a token for this API. `aws`: an access key with which SQS clients sign their requests.
          Default: `bearer`.
        - `scope`: Each scope includes those before it. Default: `manage`.
        - `queues`: Confines the key to these queues, and to the tasks, batches and schedules on them.
        - `payloads`: false: payloads, results, excerpts, progress and error texts are null, and no task is
          pulled. Default: `True`.
        """
        body = given(
            {
                "tenant": tenant,
                "kind": kind,
                "scope": scope,
                "queues": queues,
                "payloads": payloads,
                "expires_at": expires_at,
                "description": description,
            }
        )
        view: KeyIssued = await self._ask("POST", "/keys", body=body)
        return view

    async def get(self, key_id: str) -> KeyView:
        """Read a key, without its token.

        Refused with `key_not_found` (404).
        """
        view: KeyView = await self._ask("GET", f"/keys/{segment(key_id)}")
        return view

    async def revoke(self, key_id: str) -> None:
        """Revoke a key. Once answered, no replica accepts it. It stays on record.

        Refused with `key_not_found` (404).
        """
        await self._ask("DELETE", f"/keys/{segment(key_id)}")

    async def rotate(self, key_id: str, *, overlap_seconds: float = UNSET) -> KeyIssued:
        """Give a key a new token, which is not shown again. The present one is accepted for the overlap.

        - `overlap_seconds`: How long the present token is still accepted. Default: `86400.0`.

        Refused with `key_not_found` (404).
        """
        body = given({"overlap_seconds": overlap_seconds})
        view: KeyIssued = await self._ask("POST", f"/keys/{segment(key_id)}/rotate", body=body or None)
        return view
