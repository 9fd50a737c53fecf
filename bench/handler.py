"""The minimal handler, in a process of its own: answers 200 to every POST and knows when each came.

POST /count counts. POST / counts too, and answers as SQS does where it has taken a message. POST /stamp also keeps how long a
payload with `sent_ns` took to arrive, by the clock that all processes of this machine share. GET /count answers the count; GET /
answers everything that is known so far, and starts anew.
"""

import asyncio
import json
import time
from typing import cast

import uvloop

from bench.processes import say

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_MESSAGE = b'{"MessageId":"5fea7756-0ea4-451a-a703-a558b933e274","MD5OfMessageBody":"fafb00f5732ab283681e124bf8747ed1"}'
SENT = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_MESSAGE),
    _MESSAGE,
)


class Seen:
    def __init__(self) -> None:
        self.count = 0
        self.delays_ns: list[int] = []


class Handler(asyncio.Protocol):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        arrived = time.monotonic_ns()
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            total = end + 4 + content_length(head)
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            self.transport.write(self.answer(head, body, arrived))

    def answer(self, head: bytes, body: bytes, arrived: int) -> bytes:
        if head.startswith(b"get /count"):
            return reply(b'{"count":%d}' % self.seen.count)
        if head.startswith(b"get "):
            return self.report()
        self.seen.count += 1
        if head.startswith(b"post / "):
            return SENT
        if head.startswith(b"post /stamp") and b'"sent_ns"' in body:
            self.seen.delays_ns.append(arrived - json.loads(body)["sent_ns"])
        return OK

    def report(self) -> bytes:
        body = json.dumps(vars(self.seen)).encode()
        self.seen.__init__()  # type: ignore[misc]
        return reply(body)


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def content_length(head: bytes) -> int:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(head[at + 17 :].partition(b"\r\n")[0])


async def serve() -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Handler(seen), "127.0.0.1", 0, backlog=1024)
    say(event="ready", url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
