"""The one way to deal with a definition that has changed since it was read."""

import pytest

from app.runtime import catalogue
from app.runtime.catalogue import KeepsChanging, until_current

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("changes", [0, 1, catalogue.TRIES - 1])
async def test_what_was_decided_by_an_old_definition_is_decided_again(
    changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PAUSE_SECONDS", 0)
    tried: list[int] = []

    async def attempt() -> int | None:
        tried.append(len(tried))
        return None if len(tried) <= changes else len(tried)

    assert await until_current(attempt, "queue mail") == changes + 1


async def test_a_definition_that_changes_each_time_makes_the_request_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PAUSE_SECONDS", 0)
    tried: list[int] = []

    async def attempt() -> None:
        tried.append(len(tried))

    with pytest.raises(KeepsChanging) as raised:
        await until_current(attempt, "queue mail")
    assert (raised.value.code, raised.value.retry_after_seconds) == ("unavailable", 1)
    assert raised.value.detail == "queue mail keeps changing; try again"
    assert len(tried) == catalogue.TRIES
