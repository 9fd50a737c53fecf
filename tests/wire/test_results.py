"""What is kept of an answer: the result of a task, the excerpt of an attempt."""

import asyncio
import base64
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.wire.answers import outcome
from tests.wire.api import Api

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("content_type", "body", "result", "encoding"),
    [
        ("application/json", b'{"a": [1, 2.50]}', {"a": [1, 2.5]}, None),
        ("application/json; charset=utf-8", b" [1]\n", [1], None),
        ("Application/Problem+JSON", b'"x"', "x", None),
        ("application/json", b"null", None, None),
        ("application/json", b"{oops", "{oops", None),
        ("application/json", b"NaN", "NaN", None),
        ("application/json", b'{"a":1,"a":2}', '{"a":1,"a":2}', None),
        ("application/json", b'"\\ud800"', '"\\ud800"', None),
        ("application/json", b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000, None),
        ("application/json", b"\xff\xfe", base64.b64encode(b"\xff\xfe").decode(), "base64"),
        ("text/plain", b'{"a": 1}', '{"a": 1}', None),
        ("text/plain", "\u00e9\u2028".encode(), "\u00e9\u2028", None),
        ("text/plain", b"a\x00b", "a\x00b", None),
        ("image/png", b"\x89PNG\x00\xff", base64.b64encode(b"\x89PNG\x00\xff").decode(), "base64"),
        ("", b"plain", "plain", None),
        ("text/plain", b"", None, None),
    ],
)
async def test_a_result_is_json_text_or_base64(
    api: Api, handler: Handler, content_type: str, body: bytes, result: Any, encoding: str | None
) -> None:
    shown, attempt = await outcome(api, handler, Reply(200, {"content-type": content_type}, body))
    assert (shown["state"], shown["result"], shown["result_truncated"]) == ("succeeded", result, False)
    assert shown.get("result_encoding") == encoding
    assert (attempt["excerpt"] is None) == (body == b"") and len(attempt["excerpt"] or "") <= 1024


async def test_a_json_result_is_shown_as_its_bytes(api: Api, handler: Handler) -> None:
    body = b'{"big": 123456789012345678901234567890, "f": 1.10, "e": "\\u00e9"}'
    shown, _ = await outcome(api, handler, Reply(200, {"content-type": "application/json"}, body))
    assert b'"result":' + body in (await api.get(f"/tasks/{shown['id']}")).content
    listed = await api.get("/tasks", params={"queue": shown["queue"]})
    assert b'"result":' + body in listed.content


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 1_000_000])
async def test_a_result_is_cut_at_64_kib(api: Api, handler: Handler, size: int) -> None:
    shown, _ = await outcome(api, handler, Reply(200, {"content-type": "application/json"}, b"1" * size))
    assert shown["state"] == "succeeded"
    if size > 65_536:
        assert (shown["result"], shown["result_truncated"]) == ("1" * 65_536, True)
    else:
        assert (str(shown["result"]), shown["result_truncated"]) == ("1" * size, False)


async def test_a_result_cut_through_a_character_stays_text(api: Api, handler: Handler) -> None:
    shown, _ = await outcome(api, handler, Reply(200, body=b"x" + "\u00e9".encode() * 40_000))
    assert (shown["result"], shown["result_truncated"]) == ("x" + "\u00e9" * 32_767, True)
    assert "result_encoding" not in shown


async def test_a_body_without_end_is_an_answer_once_64_kib_have_come(api: Api) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(pour, "127.0.0.1", 0) as server:
        task = await api.enqueue(await api.queue_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        ended = await api.until(task["id"], "succeeded")
    assert (len(ended["result"]), ended["result_truncated"]) == (65_536, True)


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [(b"x" * 2000, "x" * 1024), (b"a\x00b\xff", "ab\ufffd"), (b"", None), ("\u00e9".encode(), "\u00e9")],
)
async def test_an_excerpt_is_the_first_kib_as_text(api: Api, handler: Handler, body: bytes, excerpt: Any) -> None:
    _, attempt = await outcome(api, handler, Reply(500, body=body))
    assert attempt["excerpt"] == excerpt
