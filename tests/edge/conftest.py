"""The edge in front of services that answer as they are told."""

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import pytest

from app.service.handlers import Saved as SavedHandler
from app.service.queues import Saved as SavedQueue
from app.store.task_lists import TaskPage
from app.store.tenants import TenantLimits
from tests.edge.edge import (
    NOW,
    TASK_ID,
    Item,
    Services,
    client,
    created,
    edge,
    handler_view,
    queue_view,
)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    found = Services()
    found.install(monkeypatch)
    found.answers |= {
        "handlers.put": SavedHandler(handler_view(), '"e"', True, "whsec_new"),
        "handlers.get": (handler_view(), '"e"'),
        "handlers.list_page": ([handler_view("a"), handler_view("b")], True),
        "handlers.enable": handler_view(),
        "handlers.disable": handler_view(enabled=False, disabled_at=NOW, disabled_reason="requested"),
        "handlers.rotate_secret": "whsec_next",
        "handlers.test": {"sent": {}},
        "queues.put": SavedQueue(queue_view(), '"e"', False),
        "queues.get": (queue_view(), '"e"'),
        "queues.list_page": ([queue_view()], False),
        "queues.pause": queue_view(paused=True, paused_at=NOW),
        "queues.resume": queue_view(),
        "queues.stats": {"queue": "q"},
        "tenant_limits.get": TenantLimits(5),
        "tenant_limits.put": TenantLimits(7, 9),
        "limits.list_page": ([], False),
        "tasks.enqueue": created(),
        "tasks.get": Item(),
        "tasks.list_page": TaskPage([cast(Any, Item())], TASK_ID),
        "tasks.attempts": ([Item(number=7)], True),
        "tasks.cancel": Item(),
        "tasks.retry": Item(),
    }
    return found


@pytest.fixture
async def api(services: Services) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(edge()) as found:
        yield found
