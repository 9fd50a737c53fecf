"""The MCP server of `sluice mcp`: which tools it offers, and both of its transports."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from inspect import signature
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations

from app.cli.mcp_tools import MANAGE, READ, USE, Tools
from app.version import VERSION

HOST = "127.0.0.1"
INSTRUCTIONS = """\
Sluice is a durable task queue and scheduler. Tasks wait in queues, are delivered to handlers or pulled by workers, and end
succeeded, dead or cancelled. Start with `overview` for what needs attention, and with `why` for anything that does not move:
it names the cause and the request that removes it. Answers are cut where they are long, and say so.
"""
NEEDS = {**dict.fromkeys(USE, "use"), **dict.fromkeys(MANAGE, "manage")}
"""What `--allow` must be for a tool that changes something."""
ALLOWED = {None: READ, "use": READ + USE, "manage": READ + USE + MANAGE}


class Server(MCPServer):
    """Offers the tools that are allowed, and says of the others what would allow them."""

    def __init__(self, tools: Tools, allow: str | None) -> None:
        super().__init__("sluice", version=VERSION, instructions=INSTRUCTIONS, log_level="WARNING")
        for name in ALLOWED[allow]:
            hints = ToolAnnotations(
                read_only_hint=name in READ, destructive_hint=name in ("cancel", "redrive"), open_world_hint=False
            )
            tool = getattr(tools, name)
            paragraph = " ".join(tool.__doc__.split())
            self.add_tool(tool, description=paragraph, annotations=hints, structured_output=False)
        self._refused = NEEDS.keys() - set(ALLOWED[allow])
        self._arguments = {
            name: set(signature(getattr(tools, name)).parameters) - {"request"} for name in ALLOWED[allow]
        }

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        if name in self._refused:
            raise ToolError(
                f"{name} changes something, and is not allowed here: start sluice mcp --allow {NEEDS[name]}"
            )
        if unknown := arguments.keys() - self._arguments.get(name, arguments.keys()):
            known = ", ".join(sorted(self._arguments[name])) or "none"
            raise ToolError(f"{name} has no argument {', '.join(sorted(unknown))}; its arguments: {known}")
        return await super().call_tool(name, arguments, context)


async def serve_stdio(url: str, key: str | None, allow: str | None) -> None:
    """Serve on stdin and stdout until stdin ends, with the given key."""
    await Server(Tools(url, key), allow).run_stdio_async()


async def serve_http(url: str, allow: str | None, port: int) -> int:
    """Serve streamable HTTP at /mcp on loopback, until SIGTERM or Ctrl-C. Return the exit code.

    Each request is made with the API key that it carries, so nobody else on this machine acts with a key of the server's.
    A Host or Origin that is not this address is refused, because web pages can reach loopback by DNS rebinding.
    """
    try:
        bound = socket.create_server((HOST, port))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error  # strerror repeats the address
        print(f"Cannot listen on {HOST}:{port}: {why}. Choose another port.", file=sys.stderr)
        return 1
    os.environ.pop("SLUICE_KEY", None)  # the client would take it for a request that has none
    port = bound.getsockname()[1]
    names = [f"{HOST}:{port}", f"localhost:{port}"]
    security = TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names])
    application = Server(Tools(url, None), allow).streamable_http_app(
        stateless_http=True, json_response=True, transport_security=security
    )
    config = uvicorn.Config(application, access_log=False, log_level="warning", server_header=False)
    print(f"Listening on http://{HOST}:{port}/mcp", file=sys.stderr, flush=True)
    await _Http(config).serve(sockets=[bound])
    return 0


class _Http(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Exit with 0 on SIGINT and SIGTERM: being stopped is how this command ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
