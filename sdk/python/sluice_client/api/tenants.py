"""Tenants, as their operator sees them.

Generated from openapi/openapi.json by `make openapi`.
"""

from sluice_client.api.group import Group
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import GrantOut


class Tenants(Group):
    async def limits(self, name: str) -> GrantOut:
        """Read a tenant's limit as granted by the operator.

        Refused with `tenant_not_found` (404).
        """
        view: GrantOut = await self._ask("GET", f"/tenants/{segment(name)}/limits")
        return view

    async def put_limits(self, name: str, *, max_concurrency: int | None = UNSET) -> GrantOut:
        """Limit a tenant's running tasks over all its queues. Its own limit cannot exceed or remove this one.

        - `max_concurrency`: null: only the tenant's own limit applies.

        Refused with `tenant_not_found` (404).
        """
        body = given({"max_concurrency": max_concurrency})
        view: GrantOut = await self._ask("PUT", f"/tenants/{segment(name)}/limits", body=body)
        return view
