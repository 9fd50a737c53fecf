"""`sluice work` as a process, against a real replica: what commands make of tasks, and what becomes of both when one stops."""

import base64
import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.cli.worker_command import Ended, result_of, verdict
from tests.sluices import Replica, SluiceProcess, end, start_process
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Start = Callable[..., Awaitable[SluiceProcess]]
FAST = {"backoff": {"kind": "fixed", "seconds": 0}, "max_attempts": 5}


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


@pytest.fixture
async def work(replica: Replica) -> AsyncIterator[Start]:
    """Starts `sluice work QUEUE --exec COMMAND`."""
    started: list[SluiceProcess] = []

    async def start(queue: str, command: str, *options: str, **environment: str) -> SluiceProcess:
        given: dict[str, str | None] = {"SLUICE_URL": replica.url, **environment}
        process = await start_process("work", queue, "--exec", command, *options, environment=given)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.signal(signal.SIGTERM)
            await poll(partial(_stops, process), 20)
        await end(process)


def _stops(process: SluiceProcess) -> bool:
    return process.returncode is not None or "stopping" in process.output


class Gate:
    """Commands say their process ids into `pids`, and each waits until it is let through."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "pids").touch()
        here = shlex.quote(str(folder))
        self.command = f"mkfifo {here}/$$; echo $$ >> {here}/pids; read -r word < {here}/$$; echo $word"

    def pids(self) -> list[int]:
        return [int(line) for line in (self._folder / "pids").read_text().splitlines()]

    async def reached(self, count: int = 1) -> list[int]:
        await poll(lambda: len(self.pids()) >= count, 20)
        return self.pids()

    async def open(self, pid: int) -> None:
        await poll(lambda: self._opened(pid), 20)

    def _opened(self, pid: int) -> bool:
        try:
            gate = os.open(self._folder / str(pid), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False  # it does not read yet
        os.write(gate, b"through\n")
        os.close(gate)
        return True


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


async def gone(pids: list[int]) -> None:
    await poll(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


async def test_exit_0_completes_with_what_was_printed(api: Api, work: Start) -> None:
    queue = await api.queue()
    await work(queue, "cat")
    body = b'{"payload":{"b": 1.0,  "a":"\\u00e9\xc3\xa9"}}'
    task = good(await api.enqueue_bytes(queue, body), 201)
    assert (await api.until(task["id"], "succeeded"))["result"] == {"b": 1.0, "a": "éé"}
    text = await api.enqueue(queue, "not ] json")
    assert (await api.until(text["id"], "succeeded"))["result"] == "not ] json"


async def test_a_command_gets_the_payloads_bytes_and_knows_its_task(api: Api, work: Start, tmp_path: Path) -> None:
    queue = await api.queue()
    await work(
        queue,
        f'cat > {tmp_path}/seen; printf %s "$SLUICE_TASK_ID $SLUICE_TASK_TYPE $SLUICE_TASK_ATTEMPT $SLUICE_TASK_QUEUE"',
    )
    task = good(await api.enqueue_bytes(queue, b'{"type":"t","payload":{"b": 1.0,  "a":"\\u00e9"}}'), 201)
    assert (await api.until(task["id"], "succeeded"))["result"] == f"{task['id']} t 1 {queue}"
    assert (tmp_path / "seen").read_bytes() == b'{"b": 1.0,  "a":"\\u00e9"}'


async def test_a_command_gets_bytes_that_are_not_json_too(api: Api, work: Start) -> None:
    queue = await api.queue()
    given = bytes(range(256))
    body = {"payload_base64": base64.b64encode(given).decode()}
    task = good(await api.post(f"/queues/{queue}/tasks", json=body), 201)
    await work(queue, "sha256sum | cut -c 1-64")
    assert (await api.ended(task["id"]))["result"] == hashlib.sha256(given).hexdigest()


async def test_a_command_gets_no_secret_of_ours(api: Api, work: Start) -> None:
    queue = await api.queue()
    secrets = {
        "SLUICE_KEY": "slk_1",
        "SLUICE_DATABASE_URL": "postgres://u:hush@h/d",
        "SLUICE_ENCRYPTION_KEY_FILE": "/k",
    }
    await work(queue, "env", MINE="kept", **secrets)
    task = await api.enqueue(queue)
    result = (await api.until(task["id"], "succeeded"))["result"].splitlines()
    ours = {line.partition("=")[0] for line in result if line.startswith("SLUICE_")}
    told = {"SLUICE_TASK_ID", "SLUICE_TASK_TYPE", "SLUICE_TASK_ATTEMPT", "SLUICE_TASK_QUEUE"}
    assert ours == {"SLUICE_URL"} | told and "MINE=kept" in result


async def test_a_command_need_not_read_or_print(api: Api, work: Start) -> None:
    queue = await api.queue()
    await work(queue, "true")
    task = await api.enqueue(queue, "x" * 500_000)
    assert (await api.until(task["id"], "succeeded"))["result"] is None


async def test_more_output_than_a_result_may_be_is_cut(api: Api, work: Start) -> None:
    queue = await api.queue()
    await work(queue, "head -c 1000000 /dev/zero | tr '\\0' x")
    task = await api.enqueue(queue)
    shown = await api.until(task["id"], "succeeded", result_truncated=True)
    assert 65_000 < len(shown["result"]) < 65_536 and set(shown["result"]) == {"x"}


async def test_bytes_arrive_as_bytes(api: Api, work: Start) -> None:
    queue = await api.queue()
    await work(queue, "printf '\\377\\000\\001'")
    task = await api.enqueue(queue)
    shown = await api.until(task["id"], "succeeded")
    assert (base64.b64decode(shown["result"]), shown["result_encoding"]) == (b"\xff\x00\x01", "base64")
    assert not shown["result_truncated"]


async def test_exit_75_retries(api: Api, work: Start) -> None:
    queue = await api.queue(retry=FAST)
    process = await work(queue, '[ "$SLUICE_TASK_ATTEMPT" = 3 ] || { echo later >&2; exit 75; }')
    task = await api.enqueue(queue)
    ended = await api.until(task["id"], "succeeded")
    assert (ended["attempt"], ended["last_error"]) == (3, "exit 75: later")
    assert await process.printed(lambda line: "attempt 2: exit 75" in line)


@pytest.mark.parametrize("code", [1, 3])
async def test_any_other_exit_fails_for_good(api: Api, work: Start, code: int) -> None:
    queue = await api.queue(retry=FAST)
    process = await work(queue, f"echo no such account >&2; exit {code}")
    task = await api.enqueue(queue)
    ended = await api.until(task["id"], "dead", reason="stopped_by_worker")
    assert (ended["attempt"], ended["last_error"]) == (1, f"exit {code}: no such account")
    assert await process.printed(lambda line: line == "no such account"), "what a command complains of is seen"


async def test_a_command_that_cannot_be_run_is_no_fault_of_its_tasks(api: Api, work: Start) -> None:
    queue = await api.queue(retry={**AT_ONCE, "max_attempts": 2})
    await work(queue, "no-such-command-anywhere")
    task = await api.enqueue(queue)
    assert "exit 127" in (await api.until(task["id"], "dead", reason="attempts_exhausted"))["last_error"]


async def test_the_lease_is_renewed_while_the_command_runs(api: Api, work: Start, gate: Gate) -> None:
    queue = await api.queue()
    await work(queue, gate.command, "--lease-seconds", "1.5")
    task = await api.enqueue(queue)
    (pid,) = await gate.reached()
    ends = {(await api.task(task["id"]))["lease"]["expires_at"]}

    async def renewed_often() -> bool:
        ends.add((await api.task(task["id"]))["lease"]["expires_at"])
        return len(ends) > 4

    await poll(renewed_often, 20)
    await gate.open(pid)
    ended = await api.until(task["id"], "succeeded")
    assert (ended["attempt"], ended["result"]) == (1, "through")


async def test_a_cancel_kills_the_command_and_all_it_started(api: Api, work: Start, tmp_path: Path) -> None:
    queue = await api.queue()
    child = f"sh -c 'echo $$ >> {tmp_path}/pids; exec tail -f /dev/null' & wait"
    process = await work(queue, f"echo $$ >> {tmp_path}/pids; {child}", "--lease-seconds", "1.5")
    task = await api.enqueue(queue)
    pids = await poll(lambda: _two(tmp_path / "pids"), 20)
    good(await api.cancel(task["id"]))
    await gone(pids)
    assert await process.printed(lambda line: "killed: task_cancelled" in line)
    second = await api.enqueue(queue)
    await api.until(second["id"], "running")


def _two(path: Path) -> list[int]:
    pids = path.read_text().split() if path.exists() else []
    return [int(pid) for pid in pids] if len(pids) == 2 else []


async def test_a_lost_lease_kills_the_command(api: Api, work: Start, gate: Gate) -> None:
    queue = await api.queue()
    process = await work(queue, gate.command, "--lease-seconds", "1")
    task = await api.enqueue(queue)
    pids = await gate.reached()
    process.signal(signal.SIGSTOP)
    (taken,) = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 30}))["tasks"]
    assert (taken["id"], taken["attempt"]) == (task["id"], 2)
    process.signal(signal.SIGCONT)
    await gone(pids)
    assert await process.printed(lambda line: "killed: lease_lost" in line)
    assert (await api.task(task["id"]))["state"] == "running"


async def test_memory_is_limited(api: Api, work: Start) -> None:
    queue = await api.queue(retry=FAST)
    greedy = f"{sys.executable} -c 'import json, sys; print(len(bytearray(json.load(sys.stdin))))'"
    await work(queue, greedy, "--memory-mb", "500")
    small, large = await api.enqueue(queue, 1000), await api.enqueue(queue, 2**30)
    assert (await api.until(small["id"], "succeeded"))["result"] == 1000
    assert "MemoryError" in (await api.until(large["id"], "dead", reason="stopped_by_worker"))["last_error"]


async def test_so_many_run_at_a_time_and_no_more(api: Api, work: Start, gate: Gate) -> None:
    queue = await api.queue()
    tasks = [await api.enqueue(queue, n) for n in range(4)]
    await work(queue, gate.command, "--concurrency", "3")
    first, *_ = await gate.reached(3)
    states = sorted([(await api.task(task["id"]))["state"] for task in tasks])
    assert states == ["ready", "running", "running", "running"]
    await gate.open(first)
    for pid in (await gate.reached(4))[1:]:
        await gate.open(pid)
    for task in tasks:
        await api.until(task["id"], "succeeded")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_runs_finish_and_takes_no_more(
    replica: Replica, api: Api, work: Start, gate: Gate, number: signal.Signals
) -> None:
    queue = await api.queue()
    process = await work(queue, gate.command, "--concurrency", "2", "--lease-seconds", "3")
    first = await api.enqueue(queue)
    (pid,) = await gate.reached()
    process.signal(number)
    await process.printed(lambda line: "stopping: waiting for 1 command" in line)
    # it says so before its request is broken off: what is enqueued in between is still given to it
    await poll(lambda: not replica.sluice.core.long_polls._queues, 20)
    second = await api.enqueue(queue)
    await gate.open(pid)
    assert await process.ended(20) == 0, process.output
    assert (await api.task(first["id"]))["state"] == "succeeded"
    # ready at once; where the signal came between a request and its response, when that lease ends
    await api.until(second["id"], "ready")
    assert gate.pids() == [pid]


async def test_a_second_signal_kills_and_gives_back(api: Api, work: Start, gate: Gate) -> None:
    queue = await api.queue()
    process = await work(queue, gate.command)
    task = await api.enqueue(queue)
    pids = await gate.reached()
    process.signal(signal.SIGTERM)
    await process.printed(lambda line: "stopping" in line)
    process.signal(signal.SIGTERM)
    assert await process.ended(20) == 130, process.output
    await gone(pids)
    left = await api.task(task["id"])
    assert (left["state"], left["attempt"]) == ("ready", 0)
    assert [attempt["outcome"] for attempt in await api.attempts(task["id"])] == ["released"]


async def test_an_idle_worker_ends_at_once(api: Api, work: Start) -> None:
    process = await work(await api.queue(), "cat")
    await process.printed(lambda line: "working on queue" in line)
    process.signal(signal.SIGTERM)
    assert await process.ended(10) == 0


async def test_what_no_waiting_mends_ends_it_with_a_sentence(api: Api, work: Start, handler: Any) -> None:
    push = await work(await api.queue_to(handler.url), "cat")
    absent = await work("no-such-queue", "cat")
    odd = await work("q", "cat", SLUICE_URL="sluice.example")
    assert (await push.ended(20), "so its tasks cannot be pulled" in push.output) == (1, True)
    assert (await absent.ended(20), "PUT /queues/no-such-queue creates it" in absent.output) == (1, True)
    assert (await odd.ended(20), "SLUICE_URL" in odd.output or "--url" in odd.output) == (2, True)
    assert "Traceback" not in push.output + absent.output + odd.output


async def test_a_service_that_is_away_is_asked_again(api: Api, work: Start, unused_port: int) -> None:
    process = await work("q", "cat", SLUICE_URL=f"http://127.0.0.1:{unused_port}")
    await process.printed(lambda line: "trying again in" in line)
    process.signal(signal.SIGINT)
    assert await process.ended(10) == 0


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    return port


async def test_it_works_with_a_key(start_replica: Callable[..., Awaitable[Replica]], work: Start) -> None:
    key = "slk_0123456789_abcdefghijklmnopqrstuvwxyz012345"
    replica = await start_replica(auth="on", bootstrap_key=key, host="127.0.0.1")
    api = Api(replica.client, replica.url)
    api.client.headers["authorization"] = f"Bearer {key}"
    queue = await api.queue()
    refused = await work(queue, "cat", SLUICE_URL=replica.url)
    assert (await refused.ended(20), "Authorization" in refused.output) == (1, True)
    await work(queue, "cat", SLUICE_URL=replica.url, SLUICE_KEY=key)
    task = await api.enqueue(queue, 7)
    assert (await api.until(task["id"], "succeeded"))["result"] == 7


@pytest.mark.parametrize("output", [b'{"a": 1}\n', b"1", b"null", b'"x"', b'"' + b"x" * 65_534 + b'"'])
def test_json_is_the_result_as_it_stands(output: bytes) -> None:
    assert result_of(output, True) == {"result": msgspec.Raw(output.strip())}


@pytest.mark.parametrize(
    "output", [b'1,"next":"x"', b"NaN", b'{"a": 1, "a": 2}', b"[" * 128 + b"]" * 128, b'"\\ud800"', "é\x00".encode()]
)
def test_what_the_service_would_not_take_as_json_is_text(output: bytes) -> None:
    assert result_of(output + b"\n", True) == {"result": output.decode(), "result_truncated": False}


def test_text_is_cut_to_what_fits_as_json_and_said_to_be() -> None:
    cut = result_of(b"\x01" * 65_536, True)
    assert cut["result_truncated"] and 65_525 < len(json.dumps(cut["result"])) <= 65_536
    assert result_of(b'{"whole": false}', False) == {"result": '{"whole": false}', "result_truncated": True}
    assert result_of("zürich".encode()[:2], False) == {"result": "z", "result_truncated": True}
    assert result_of(b" \n", True) == {}


def test_bytes_that_are_no_text_go_as_base64() -> None:
    image = b"\x89PNG\r\n\x00\xff\n"
    for whole in (True, False):
        sent = result_of(image, whole)
        assert base64.b64decode(sent.pop("result")) == image
        assert sent == {"result_encoding": "base64", "result_truncated": not whole}


def test_the_end_of_a_command_by_a_signal_fails_for_good() -> None:
    assert verdict(Ended(-9, b"", True, b"")) == ("fail", {"error": "signal 9", "retryable": False})
