"""A list of the API: its items one by one, or page by page."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from sluice_client.api.parameters import given
from sluice_client.api.replies import document
from sluice_client.sync_transport import SyncTransport

ItemT = TypeVar("ItemT")
PageT = TypeVar("PageT")


class Pages(Generic[ItemT, PageT]):
    """`for item in pages` reads all items, a page at a time; stop when there are enough.

    Nothing is requested before the first item is; each iteration reads the list again.
    """

    def __init__(self, transport: SyncTransport, path: str, params: Mapping[str, Any]) -> None:
        self._transport = transport
        self._path = path
        self._params = given(params)

    def __iter__(self) -> Iterator[ItemT]:
        for page in self.pages():
            yield from cast(Mapping[str, Any], page)["items"]

    def pages(self) -> Iterator[PageT]:
        """The pages, each with its `items` and `next_cursor`."""
        cursor = self._params.get("cursor")
        while True:
            page = self._page(cursor)
            yield page
            cursor = cast(Mapping[str, Any], page)["next_cursor"]
            if cursor is None:
                return

    def page(self) -> PageT:
        """The first page; the `cursor` of the next one is its `next_cursor`."""
        return self._page(self._params.get("cursor"))

    def _page(self, cursor: str | None) -> PageT:
        params = {**self._params, "cursor": cursor}
        return cast(PageT, document(self._transport.request("GET", self._path, params=params, repeatable=True)))
