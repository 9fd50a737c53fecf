"""The child process that compiles and applies schemas that may be expensive.

Compiling and checking hold the GIL until they finish, so they can neither run nor be stopped in a thread. Here the kernel ends
them when their time is up, and the replica starts another process. Requests arrive on standard input and replies go to standard
output, each preceded by its length (4 bytes, big-endian).
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
"""A compilation of up to this length is timed twice, because a disturbance of the first says nothing about the schema."""


class Request(msgspec.Struct):
    """A schema to examine, or a payload to check against one already examined."""

    tenant: int
    schema: str
    payload: bytes | None
    seconds: float
    """Limit of processor time, which does not depend on how busy the machine is."""


class Reply(msgspec.Struct):
    errors: list[FieldError]
    used_seconds: float = 0.0
    """Processor time used."""
    compile_seconds: float = 0.0
    cheap: bool = False
    applications: int = 0
    states: int = 0
    """The bounds of a schema that was examined without errors."""


ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(Request)
_Kept = FairCache[str, Checked]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the replica drains first, and its exit closes standard input
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try_compile({"pattern": "a"})  # the library's one-time setup must not count against the first schema
    kept = _Kept(max_weight=MAX_KEPT)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(source)) is not None:
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, request.seconds)
        try:
            reply = _examine(request.schema) if request.payload is None else _check(request, request.payload, kept)
            reply.used_seconds = time.thread_time() - began
            answer = ENCODER.encode(reply)
        except BaseException:  # out of memory, or a panic in the library: end as if killed by the kernel
            os.abort()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _read(source: BinaryIO) -> Request | None:
    head = source.read(4)
    return _REQUEST.decode(source.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _examine(text: str) -> Reply:
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
    """Time a compilation by the thread's clock: the process's clock only advances in ticks while the timer runs."""
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
