"""Who changed what.

Generated from openapi/openapi.json by `make openapi`.
"""

from sluice_client.api.blocking.group import Group
from sluice_client.api.blocking.pages import Pages
from sluice_client.api.parameters import UNSET
from sluice_client.models import AuditOut, AuditOutPage, Instant


class Audit(Group):
    def list(
        self,
        *,
        actor: str | None = UNSET,
        verb: str | None = UNSET,
        noun: str | None = UNSET,
        name: str | None = UNSET,
        from_: Instant | None = UNSET,
        to: Instant | None = UNSET,
        limit: int = 200,
        cursor: str | None = UNSET,
    ) -> Pages[AuditOut, AuditOutPage]:
        """List what was changed, newest first: in the key's tenant, with scope operate in all tenants.

        A page may have fewer rows than `limit`, or none, although there are more: follow `next_cursor` until it
        is null.

        - `actor`: The id of a key, or `cli` or `system`.
        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(
            self._transport,
            "/audit",
            {
                "actor": actor,
                "verb": verb,
                "noun": noun,
                "name": name,
                "from": from_,
                "to": to,
                "limit": limit,
                "cursor": cursor,
            },
        )
