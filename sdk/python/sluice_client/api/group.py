"""What the groups of operations share: asking, and reading the answer."""

from collections.abc import Mapping
from typing import Any

from sluice_client.api.parameters import given
from sluice_client.api.replies import document
from sluice_client.transport import Transport


class Group:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        wait_seconds: float | None = None,
    ) -> Any:
        """Return the body of the response. What is UNSET is left out."""
        return document(
            await self._transport.request(
                method,
                path,
                params=None if params is None else given(params),
                json=body,
                headers=None if headers is None else given(headers),
                repeatable=repeatable or method == "GET",
                wait_seconds=wait_seconds or 0.0,
            )
        )

    async def _text(self, path: str) -> str:
        response = await self._transport.request("GET", path, repeatable=True)
        return response.text
