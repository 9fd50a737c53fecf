"""A list of the API: its items one by one, or page by page."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar, cast

from sluice_client.api.parameters import given
from sluice_client.api.replies import document
from sluice_client.transport import Transport

ItemT = TypeVar("ItemT")
PageT = TypeVar("PageT")


class Pages(Generic[ItemT, PageT]):
    """`async for item in pages` reads all items, a page at a time; stop when there are enough.

    Nothing is requested before the first item is; each iteration reads the list again.
    """

    def __init__(self, transport: Transport, path: str, params: Mapping[str, Any]) -> None:
        self._transport = transport
        self._path = path
        self._params = given(params)

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        async for page in self.pages():
            for item in cast(Mapping[str, Any], page)["items"]:
                yield item

    async def pages(self) -> AsyncIterator[PageT]:
        """The pages, each with its `items` and `next_cursor`."""
        cursor = self._params.get("cursor")
        while True:
            page = await self._page(cursor)
            yield page
            cursor = cast(Mapping[str, Any], page)["next_cursor"]
            if cursor is None:
                return

    async def page(self) -> PageT:
        """The first page; the `cursor` of the next one is its `next_cursor`."""
        return await self._page(self._params.get("cursor"))

    async def _page(self, cursor: str | None) -> PageT:
        params = {**self._params, "cursor": cursor}
        return cast(PageT, document(await self._transport.request("GET", self._path, params=params, repeatable=True)))
