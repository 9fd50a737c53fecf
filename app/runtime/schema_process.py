"""A process beside a replica that compiles and applies schemas which may be costly.

Compiling and checking hold the interpreter until they are over, so neither can be waited for in a thread, nor stopped there.
Here they are ended by the kernel when their time is up; the replica then starts another process. Requests come on standard
input, answers go to standard output, each after its length (4 bytes, big-endian).
"""

import os
import resource
import signal
import sys
import time
from typing import BinaryIO

import msgspec

from app.domain.errors import FieldError
from app.domain.fair_cache import FairCache
from app.domain.schemas.bounds import find_bounds
from app.domain.schemas.rules import (
    Checked,
    Schema,
    compile_schema,
    examine,
    schema_value,
    try_compile,
    violations,
)

MAX_KEPT = 32
MAX_MEMORY_BYTES = 2 * 1024**3
TIMED_AGAIN_SECONDS = 0.01
"""A compile up to so long is timed once more: what disturbed the first is no property of the schema."""


class Request(msgspec.Struct):
    """A schema to judge, or a payload to check against one that has been judged."""

    tenant: int
    schema: str
    payload: bytes | None
    seconds: float
    """Of processor time: a busy machine is nobody's fault."""


class Reply(msgspec.Struct):
    errors: list[FieldError]
    used_seconds: float = 0.0
    """Of processor time."""
    compile_seconds: float = 0.0
    cheap: bool = False
    applications: int = 0
    states: int = 0
    """Of a schema that was judged and has no errors: its bounds."""


ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(Request)
_Kept = FairCache[str, Checked]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the replica drains first; its end closes standard input
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try_compile({"pattern": "a"})  # what the library sets up once is not counted against the first schema
    kept = _Kept(max_weight=MAX_KEPT)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(source)) is not None:
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, request.seconds)
        try:
            reply = _judge(request.schema) if request.payload is None else _check(request, request.payload, kept)
            reply.used_seconds = time.thread_time() - began
            answer = ENCODER.encode(reply)
        except BaseException:  # no memory left, or a panic of the library's: ended as by the kernel
            os.abort()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _read(source: BinaryIO) -> Request | None:
    head = source.read(4)
    return _REQUEST.decode(source.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _judge(text: str) -> Reply:
    errors, bounds = examine(text)
    if errors:
        return Reply(errors)
    schema = schema_value(text)
    began = time.thread_time()
    compiled = try_compile(schema)
    took = time.thread_time() - began
    if isinstance(compiled, list):
        return Reply(compiled)
    if took < TIMED_AGAIN_SECONDS:
        took = min(took, _timed(schema))
    return Reply([], 0.0, took, bounds.cheap, bounds.applications, bounds.states)


def _timed(schema: Schema) -> float:
    """By the thread's clock: that of the process goes by ticks while the timer runs."""
    began = time.thread_time()
    compile_schema(schema)
    return time.thread_time() - began


def _check(request: Request, payload: bytes, kept: _Kept) -> Reply:
    checked = kept.get(request.tenant, request.schema)
    if checked is None:
        schema = schema_value(request.schema)
        checked = compile_schema(schema), find_bounds(schema)
        kept.put(request.tenant, request.schema, checked)
    return Reply(violations(*checked, payload))


if __name__ == "__main__":
    main()
