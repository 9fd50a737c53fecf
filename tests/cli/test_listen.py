"""`sluice listen` as the process a newcomer runs."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from standardwebhooks.webhooks import Webhook

from app.delivery.webhook.signing import new_secret
from tests.sluices import SluiceProcess, end, start_process

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

BODY = '{"hello": "w\\u00f6rld"}'


class Listening:
    def __init__(self, process: SluiceProcess, url: str) -> None:
        self.process = process
        self.url = url

    async def send(
        self,
        secrets: tuple[str, ...] = (),
        *,
        task: str = "task-1",
        body: str = BODY,
        age_seconds: float = 0,
        **more: str,
    ) -> httpx2.Response:
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(int(time.time() - age_seconds), UTC)
        headers = {"webhook-id": task, "sluice-queue": "mail", "sluice-attempt": "1", **more}
        if secrets:
            headers["webhook-timestamp"] = str(int(at.timestamp()))
            headers["webhook-signature"] = " ".join(Webhook(secret).sign(task, at, body) for secret in secrets)
        return await self.process.client.post(self.url, content=body.encode(), headers=headers)


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    started: list[SluiceProcess] = []

    async def start(*options: str) -> Listening:
        process = await start_process("listen", "0", *options, environment={"PYTHONUNBUFFERED": "1"})
        started.append(process)
        line = await process.printed(lambda line: line.startswith("Listening on "))
        return Listening(process, line.split()[2])

    yield start
    for process in started:
        await end(process)


async def test_it_greets_with_the_lines_that_point_a_queue_at_it(listen: Any) -> None:
    listening = await listen()
    assert f'"url": "{listening.url}"' in await listening.process.printed(lambda line: "/handlers/hello" in line)
    assert (await listening.send()).status_code == 200
    line = await listening.process.printed(lambda line: "task task-1" in line)
    assert "200 ok" in line and "queue mail" in line and "signature not checked" in line
    assert await listening.process.printed(lambda line: '{"hello": "wörld"}' in line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(listen: Any, number: int) -> None:
    listening = await listen()
    listening.process.signal(number)
    assert await listening.process.ended(10) == 0
    assert "Traceback" not in listening.process.output


async def test_it_fails_the_first_deliveries_of_each_task_as_asked(listen: Any) -> None:
    listening = await listen("--fail", "2")
    answers = [(await listening.send(task=task)).status_code for task in ("a", "a", "b", "a", "b", "b")]
    assert answers == [500, 500, 500, 200, 500, 200]


async def test_it_answers_for_each_task_of_a_group(listen: Any) -> None:
    listening = await listen("--fail", "1")
    group = {"content-type": "application/vnd.sluice.group+json"}
    first = await listening.send(task="group_1", body='{"tasks": [{"id": "a"}]}', **group)
    assert first.json() == {"failures": [{"id": "a", "error": "failed as asked (1 of 1)"}]}
    second = await listening.send(task="group_2", body='{"tasks": [{"id": "a"}, {"id": "b"}]}', **group)
    assert [failure["id"] for failure in second.json()["failures"]] == ["b"]
    third = await listening.send(task="group_3", body='{"tasks": [{"id": "b"}]}', **group)
    assert (third.status_code, third.json()) == (200, {"failures": []})
    assert (await listening.send(body="[]", **group)).status_code == 400
    assert await listening.process.printed(lambda line: "1 of 2 failed as asked" in line)


async def test_it_believes_only_signatures_it_can_verify(listen: Any) -> None:
    old, new, wrong = new_secret(), new_secret(), new_secret()
    listening = await listen("--secret", old, "--secret", new)
    assert (await listening.send((old,))).status_code == 200
    assert (await listening.send((wrong, new))).status_code == 200
    assert (await listening.send((wrong,))).status_code == 401
    assert (await listening.send(())).status_code == 401
    assert (await listening.send((old,), age_seconds=3600)).text.startswith("signed too long ago")
    assert await listening.process.printed(lambda line: "signature verified" in line)


async def test_it_waits_before_it_answers(listen: Any) -> None:
    listening = await listen("--delay", "0.2")
    began = time.monotonic()
    await listening.send()
    assert time.monotonic() - began >= 0.2


async def test_what_is_sent_cannot_steer_the_terminal(listen: Any) -> None:
    listening = await listen()
    await listening.send(body="\x1b[2J not json")
    assert await listening.process.printed(lambda line: r"\x1b[2J not json" in line)
    assert "\x1b[2J" not in listening.process.output


async def test_a_taken_port_and_a_bad_secret_are_told_in_a_sentence(listen: Any) -> None:
    listening = await listen()
    port = listening.url.rstrip("/").rsplit(":", 1)[1]
    second, third = await asyncio.gather(
        start_process("listen", port, environment={}),
        start_process("listen", "0", "--secret", "hunter2", environment={}),
    )
    assert await second.ended(20) == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in second.output
    assert await third.ended(20) == 2
    assert "whsec_" in third.output
