"""`sluice mcp` as agents use it: driven by the official client, over stdio and over HTTP.

That client takes a second to import, so only tests that use it do.
"""

import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from app.cli.mcp_answers import CHARACTERS
from tests.cli.conftest import Command
from tests.sluices import ROOT, Replica, end, start_process
from tests.wire.api import Api, good

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult

pytestmark = pytest.mark.anyio

READ = {"overview", "queue_health", "find_tasks", "show_task", "why", "errors"}
USE = {"enqueue", "retry", "cancel", "redrive"}
MANAGE = {"pause", "resume"}

GUIDE = ROOT / "docs" / "guides" / "agents.md"

Tenant = Callable[..., Awaitable[Api]]


@pytest.fixture
async def api(start_guarded: Callable[..., Awaitable[Replica]], tenant: Tenant) -> Api:
    """A tenant's API, with a key that may do all that the tools can."""
    return await tenant(await start_guarded(), "acme")


def key_of(api: Api) -> str:
    return str(api.client.headers["authorization"]).removeprefix("Bearer ")


@asynccontextmanager
async def agent(api: Api) -> "AsyncIterator[Client]":
    """A client of `sluice mcp`, over stdio."""
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    variables = {"SLUICE_URL": api.url, "SLUICE_KEY": key_of(api)}
    arguments = ["-m", "app.cli.main", "mcp"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=variables, cwd=ROOT)
    async with Client(stdio_client(server)) as client:
        yield client


@asynccontextmanager
async def agent_here(api: Api, allow: str | None = None, key: str | None = None) -> "AsyncIterator[Client]":
    """A client of the same server in this process, which starts in no time."""
    from mcp import Client

    from app.cli.mcp_server import Server
    from app.cli.mcp_tools import Tools

    async with Client(Server(Tools(api.url, key or key_of(api)), allow)) as client:
        yield client


@asynccontextmanager
async def agent_over_http(url: str, http: httpx2.AsyncClient) -> "AsyncIterator[Client]":
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with Client(streamable_http_client(url, http_client=http)) as client:
        yield client


def text(result: "CallToolResult") -> str:
    from mcp_types import TextContent

    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def told(client: "Client", tool: str, **arguments: Any) -> Any:
    """What a tool that succeeds answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    return json.loads(text(result).partition("\nCut: ")[0])


async def refused(client: "Client", tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    return text(result)


async def dies(api: Api, queue: str) -> None:
    """The one task of this queue."""
    (lease,) = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 5}))["tasks"]
    token = {"sluice-lease-token": lease["lease_token"]}
    body = {"error": "no such address", "retryable": False}
    good(await api.post(f"/tasks/{lease['id']}/fail", json=body, headers=token))


@pytest.mark.ci
async def test_an_agent_finds_why_a_task_waits_and_is_refused_a_retry(api: Api) -> None:
    queue = await api.queue()
    good(await api.post(f"/queues/{queue}/pause"))
    task = await api.enqueue(queue, {"to": "ada"})
    async with agent(api) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == READ
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all(80 < len(tool.description or "") < 600 and "\n" not in (tool.description or "") for tool in tools)

        assert [seen["queue"] for seen in (await told(client, "overview"))["queues"]] == [queue]
        (found,) = (await told(client, "find_tasks", queue=queue, state="ready"))["items"]
        assert found["id"] == task["id"] and found["waiting_for"] == "queue_paused"
        why = await told(client, "why", task=task["id"])
        assert why["blockers"][0]["code"] == "queue_paused"
        assert why["blockers"][0]["next"]["path"] == f"/queues/{queue}/resume"

        assert "--allow use" in await refused(client, "retry", task=task["id"])
        assert "--allow manage" in await refused(client, "resume", queue=queue)
    assert (await api.get(f"/tasks/{task['id']}")).json()["state"] == "ready"
    assert (await api.get(f"/queues/{queue}")).json()["paused"]


@pytest.mark.ci
async def test_an_agent_that_may_use_changes_tasks_and_one_that_may_manage_also_queues(api: Api) -> None:
    queue = await api.queue()
    async with agent_here(api, "use") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READ | USE
        task = await told(client, "enqueue", queue=queue, payload={"n": 1}, idempotency_key="one")
        assert (await told(client, "enqueue", queue=queue, payload={"n": 1}, idempotency_key="one"))["id"] == task["id"]
        assert (await told(client, "cancel", task=task["id"]))["state"] == "cancelled"
        assert (await told(client, "retry", task=task["id"]))["state"] == "ready"
        await dies(api, queue)
        counted, moved = {"matched": 1, "moved": 0, "remaining": 1}, {"matched": 1, "moved": 1, "remaining": 0}
        assert (await told(client, "redrive", queue=queue)) == counted
        assert (await told(client, "errors", queue=queue))["items"][0]["dead"] == 1
        assert (await told(client, "redrive", queue=queue, dry_run=False)) == moved
        assert "--allow manage" in await refused(client, "pause", queue=queue)
    async with agent_here(api, "manage") as client:
        assert (await told(client, "pause", queue=queue))["paused"] is True
        assert (await told(client, "queue_health", queue=queue))["why"]["blockers"][0]["code"] == "queue_paused"
        assert (await told(client, "resume", queue=queue))["paused"] is False


@pytest.mark.ci
async def test_what_the_key_may_not_do_or_read_the_tools_cannot_either(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue, {"secret": "s3cret"})
    body = {"scope": "read", "payloads": False}
    key = good(await api.post("/keys", json=body), 201)["token"]
    async with agent_here(api, "manage", key) as client:
        shown = await told(client, "show_task", task=task["id"])
        assert shown["content_hidden"] is True and "s3cret" not in json.dumps(shown)
        assert "403 forbidden" in await refused(client, "cancel", task=task["id"])
        assert "404 task_not_found" in await refused(client, "show_task", task=task["id"][:-4] + "ffff")
        assert "exactly one" in await refused(client, "why", task=task["id"], queue=queue)
        for odd in ("../queues", "a/b?c#d", "\x00", "\ud800", "x" * 10_000):
            assert "Error executing tool why: " in await refused(client, "why", task=odd), odd
        assert "cannot be sent" in await refused(client, "find_tasks", tag="\ud800")


@pytest.mark.ci
async def test_answers_are_bounded_and_say_how_to_go_on(api: Api) -> None:
    queue = await api.queue()
    large = await api.enqueue(queue, {"text": "x" * 100_000, "list": list(range(10_000))})
    await api.bulk(queue, [{"payload": number} for number in range(30)])
    async with agent_here(api) as client:
        result = text(await client.call_tool("show_task", {"task": large["id"]}))
        assert len(result) < CHARACTERS + 300 and f"GET /tasks/{large['id']}" in result
        first = await told(client, "find_tasks", queue=queue)
        second = await told(client, "find_tasks", queue=queue, cursor=first["next_cursor"])
        assert (len(first["items"]), len(second["items"])) == (20, 11) and "next_cursor" not in second
        ids = {task["id"] for task in first["items"] + second["items"]}
        assert len(ids) == 31
        assert "limit" in await refused(client, "find_tasks", limit=21)
        # ignored, it would widen what is found or done
        assert "has no argument status; its arguments: batch," in await refused(client, "find_tasks", status="dead")


@pytest.mark.ci
async def test_over_http_each_request_has_its_own_key_and_web_pages_are_refused(api: Api) -> None:
    """The key of the server's surroundings is nobody's: other users of the machine reach the port, too."""
    queue = await api.queue()
    variables: dict[str, str | None] = {"SLUICE_URL": api.url, "SLUICE_KEY": key_of(api)}
    process = await start_process("mcp", "--port", "0", environment=variables)
    try:
        line = await process.printed(lambda line: line.startswith("Listening on "))
        url = line.removeprefix("Listening on ")
        assert url.startswith("http://127.0.0.1:") and url.endswith("/mcp")
        authorization = {"authorization": f"Bearer {key_of(api)}"}
        async with httpx2.AsyncClient(trust_env=False, verify=False, headers=authorization) as http:
            async with agent_over_http(url, http) as client:
                assert {tool.name for tool in (await client.list_tools()).tools} == READ
                assert (await told(client, "why", queue=queue))["queue"] == queue
                assert "--allow use" in await refused(client, "retry", task=queue)
            for headers, status in (({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)):
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
                accept = {"accept": "application/json, text/event-stream"}
                assert (await http.post(url, json=body, headers={**accept, **headers})).status_code == status
        async with (
            httpx2.AsyncClient(trust_env=False, verify=False) as http,
            agent_over_http(url, http) as client,
        ):
            assert "401 unauthenticated" in await refused(client, "why", queue=queue)
        assert await process.terminate() == 0
    finally:
        await end(process)


@pytest.mark.ci
def test_the_guide_lists_every_tool_and_what_it_needs() -> None:
    from app.cli import mcp_tools

    assert (set(mcp_tools.READ), set(mcp_tools.USE), set(mcp_tools.MANAGE)) == (READ, USE, MANAGE)
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*)\|$", GUIDE.read_text(), re.MULTILINE)
    needed = {name: level.strip(" `").removeprefix("--allow ") for name, level in rows}
    assert needed == dict.fromkeys(READ, "") | dict.fromkeys(USE, "use") | dict.fromkeys(MANAGE, "manage")


@pytest.mark.ci
async def test_an_agent_is_told_when_nothing_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.mcp_tools.TIMEOUT_SECONDS", 0.2)
    nobody = Api(httpx2.AsyncClient(headers={"authorization": "Bearer slk_x"}), "http://127.0.0.1:9")
    async with agent_here(nobody) as client:
        assert "http://127.0.0.1:9" in await refused(client, "overview")


def test_without_its_extra_the_command_says_which_one_it_needs(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mcp", "mcp_types")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "app.cli.mcp_server", raising=False)
    monkeypatch.delitem(sys.modules, "app.cli.mcp_tools", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    ended = command("mcp")
    assert ended.code == 2 and "pip install 'sluice-queue[mcp]'" in ended.err
