"""Servers that are no friends, at the other end of a handler or a source of kind sqs: what they say breaks nothing and is told."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import poll
from tests.wire.api import Api, fresh, good

if TYPE_CHECKING:
    from tests.sqs_server import SqsServer

pytestmark = [pytest.mark.anyio, pytest.mark.ci]
NUL = "a\u0000b"
ANSWERS = [
    (200, {"MessageId": NUL}),
    (200, {"MessageId": "x" * 60_000}),
    (200, {"MessageId": ""}),
    (200, {"MessageId": "\ud800"}),
    (400, {"__type": f"x#{NUL}", "message": NUL}),
    (400, {"__type": "x#" + "C" * 50_000, "message": "m" * 50_000}),
    (400, {"__type": "x#\ud800", "message": "\udfff"}),
    (400, {"__type": "", "message": ""}),
    (429, {"__type": NUL, "message": [NUL]}),
    (500, [NUL]),
]


@pytest.mark.parametrize(("status", "said"), ANSWERS)
async def test_whatever_a_server_answers_ends_the_attempt(api: Api, sqs: "SqsServer", status: int, said: Any) -> None:
    from tests.sqs_server import Fault

    outside = sqs.queue()
    sqs.before = lambda asked: Fault(status, json.dumps(said).encode())
    handler = fresh("h")
    good(await api.put(f"/handlers/{handler}", json=sqs.address(outside)), 201)
    queue = await api.queue(handler, retry={"max_attempts": 1})
    task = await api.enqueue(queue, {"n": 1})

    async def ended() -> dict[str, Any] | None:
        found = await api.task(task["id"])
        return found if found["state"] in ("succeeded", "dead") else None

    found = await poll(ended, 15)
    (attempt,) = await api.attempts(task["id"])
    assert len(json.dumps(attempt)) < 100_000
    assert found["state"] == "succeeded" or (found["reason"] == "attempts_exhausted" and found["last_error"])


@pytest.mark.parametrize(("status", "said"), [answer for answer in ANSWERS if answer[0] != 200])
async def test_whatever_a_server_answers_a_source_tells(api: Api, sqs: "SqsServer", status: int, said: Any) -> None:
    from tests.sqs_server import Fault

    outside = sqs.queue()
    sqs.before = lambda asked: Fault(status, json.dumps(said).encode())
    source, queue = fresh("s"), await api.queue()
    good(await api.put(f"/sources/{source}", json={"queue": queue, **sqs.address(outside)}), 201)

    async def told() -> dict[str, Any] | None:
        shown: dict[str, Any] = good(await api.get(f"/sources/{source}"))
        return shown if shown["last_error"] else None

    assert len((await poll(told, 15))["last_error"]) < 2_000
    tested = good(await api.post(f"/sources/{source}/test"))
    assert tested["error"]
    assert (await api.delete(f"/sources/{source}")).status_code == 204


async def test_a_batch_that_fails_with_nonsense_is_told_and_tried_again(api: Api, sqs: "SqsServer") -> None:
    from tests.sqs_server import Asked, Fault

    outside = sqs.queue()
    outside.send("1")
    failed = {"Id": "0", "SenderFault": False, "Code": NUL, "Message": "m" * 100_000 + NUL}
    nonsense = [failed, {**failed, "Id": "99"}, {**failed, "Id": NUL}]

    def fails(asked: Asked) -> Fault | None:
        return Fault.document({"Failed": nonsense}) if asked.operation == "DeleteMessageBatch" else None

    sqs.before = fails
    source, queue = fresh("s"), await api.queue()
    good(await api.put(f"/sources/{source}", json={"queue": queue, **sqs.address(outside)}), 201)

    async def told() -> str | None:
        error: str | None = good(await api.get(f"/sources/{source}"))["last_error"]
        return error

    assert len(await poll(told, 15)) < 2_000
    sqs.before = lambda asked: None

    def gone() -> bool:
        outside.show_again()
        return not outside.left()

    await poll(gone, 30)
    assert len(await api.pages("/tasks", queue=queue)) == 1
    assert (await api.delete(f"/sources/{source}")).status_code == 204
