"""Tasks without a Sluice object, and servers for what they are mounted in."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from werkzeug.serving import make_server

from sluice_client.serving.push import MAX_BODY_BYTES, Push
from sluice_client.tasks.functions import FunctionDefinition
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport
from tests.wire.api import Api, fresh, good

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy1oZXJlISE="


def declare(registry: Registry, function: Callable[..., Any], queue: str, **options: Any) -> None:
    """What `@sluice.task(queue=…)` does."""
    registry.add(FunctionDefinition(function, {"queue": queue, **options}))


def push(registry: Registry, transport: Transport, *secrets: str, largest: int = MAX_BODY_BYTES) -> Push:
    return Push(registry, transport, secrets or (SECRET,), largest)


@asynccontextmanager
async def asgi_server(app: Any, *, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """The URL of this application, served by uvicorn in this event loop."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan=lifespan, timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def wsgi_server(app: Any) -> AsyncIterator[str]:
    """The URL of this application, served by threads."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def queue_to(api: Api, url: str, name: str | None = None, *, secret: str = SECRET, **handler: Any) -> str:
    """A queue whose tasks are delivered there."""
    handled = await api.handler(url, secret=secret, **handler)
    name = name or fresh("q")
    good(await api.put(f"/queues/{name}", json={"handler": handled}), 201)
    return name
