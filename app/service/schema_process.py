"""The process beside a replica that compiles and applies schemas which may be costly.

A check holds the interpreter until it is over, so it cannot be waited for in a thread, nor stopped there. Here it is ended by
the kernel when its time is up; the replica then starts another process. Requests come on standard input, answers go to
standard output, each after its length (4 bytes, big-endian).
"""

import os
import resource
import signal
import sys
from collections import OrderedDict
from typing import BinaryIO

import msgspec

from app.domain.errors import FieldError
from app.domain.schema_bounds import find_bounds
from app.domain.schemas import Checked, compile_errors, compile_schema, schema_value, violations

MAX_KEPT = 16
MAX_MEMORY_BYTES = 2 * 1024**3


class Request(msgspec.Struct):
    """A schema to compile, or a payload to check against it."""

    schema: str
    payload: bytes | None
    seconds: float
    """Of processor time: a busy machine is nobody's fault."""


ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(Request)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the replica drains first; its end closes standard input
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kept: OrderedDict[str, Checked] = OrderedDict()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(source)) is not None:
        signal.setitimer(signal.ITIMER_PROF, request.seconds)
        try:
            answer = ENCODER.encode(_answer(request, kept))
        except BaseException:  # no memory left, or a panic of the library's: ended as by the kernel
            os.abort()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _read(source: BinaryIO) -> Request | None:
    head = source.read(4)
    return _REQUEST.decode(source.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


def _answer(request: Request, kept: OrderedDict[str, Checked]) -> list[FieldError] | None:
    if request.payload is None:
        return compile_errors(request.schema)
    checked = kept.pop(request.schema, None)
    if checked is None:
        schema = schema_value(request.schema)
        checked = compile_schema(schema), find_bounds(schema)
    kept[request.schema] = checked
    if len(kept) > MAX_KEPT:
        kept.popitem(last=False)
    return violations(*checked, request.payload)


if __name__ == "__main__":
    main()
