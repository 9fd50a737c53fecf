"""The process that checks what may be costly: ended, started again, and out of the way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.errors import Refusal
from app.service import schemas
from app.service.schemas import SchemaChecker
from tests.support import poll

pytestmark = pytest.mark.anyio

TREE = '{"properties": {"a": {"$ref": "#"}}}'
DOUBLING = (
    '{"$id": "http://x/", "$defs": {"other": {"$id": "o"}, '
    + ", ".join(
        f'"d{n}": {{"allOf": [{{"$ref": "#/$defs/d{n + 1}"}}, {{"$ref": "#/$defs/d{n + 1}"}}]}}' for n in range(40)
    )
    + ', "d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}'
)
"""Applies its last definition 2^40 times, and has an `$id` inside, so that nobody can tell beforehand."""


@pytest.fixture
async def checker() -> AsyncIterator[SchemaChecker]:
    made = SchemaChecker()
    yield made
    await made.close()


async def refused(checker: SchemaChecker, queue: int, schema: str, payload: bytes) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await checker.check((queue, 1), schema, payload, "/tasks/3")
    return refusal.value


async def test_a_cheap_schema_needs_no_process(checker: SchemaChecker) -> None:
    await checker.check((1, 1), '{"type": "integer"}', b"1", "")
    refusal = await refused(checker, 1, '{"type": "integer"}', b'"a"')
    assert (refusal.code, refusal.errors[0].pointer) == ("payload_schema_mismatch", "/tasks/3/payload")
    assert checker._process is None


async def test_each_version_of_a_queue_has_its_schema(checker: SchemaChecker) -> None:
    await checker.check((1, 1), '{"type": "integer"}', b"1", "")
    await checker.check((1, 2), '{"type": "string"}', b'"a"', "")
    await checker.check((2, 1), "true", b"null", "")
    assert (await refused(checker, 1, "", b'"a"')).code == "payload_schema_mismatch"


async def test_what_is_kept_is_bounded(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MAX_KEPT", 3)
    for queue in range(10):
        await checker.check((queue, 1), "true", b"1", "")
    assert list(checker._kept) == [(7, 1), (8, 1), (9, 1)]


async def test_a_check_is_ended_when_its_time_is_up_and_the_next_one_answered(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 0.2)
    slow = asyncio.create_task(refused(checker, 1, DOUBLING, b"1"))
    after = [checker.check((2, 1), TREE, b'{"a": {}}', "") for _ in range(5)]
    await asyncio.gather(*after)
    refusal = await slow
    assert refusal.code == "payload_schema_mismatch" and "0.2 seconds" in refusal.detail


async def test_a_process_that_was_killed_is_started_again(checker: SchemaChecker) -> None:
    await checker.check((1, 1), TREE, b"{}", "")
    first = checker._process
    assert first is not None
    first.kill()
    await first.wait()
    await checker.check((1, 1), TREE, b"{}", "")
    assert checker._process is not first


async def test_one_who_gave_up_leaves_no_answer_for_the_next(checker: SchemaChecker) -> None:
    await checker.check((1, 1), TREE, b"{}", "")
    waiting = asyncio.create_task(checker.check((2, 1), DOUBLING, b"1", ""))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await checker.check((1, 1), TREE, b"{}", "")


async def test_a_process_that_others_killed_is_no_verdict(checker: SchemaChecker) -> None:
    waiting = asyncio.create_task(refused(checker, 1, DOUBLING, b"1"))

    async def asked() -> bool:
        return checker._process is not None

    await poll(asked)
    assert checker._process is not None
    checker._process.kill()
    assert (await waiting).code == "unavailable"


async def test_without_a_process_nothing_is_taken(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.sys, "executable", "/nowhere/python")
    assert (await refused(checker, 1, TREE, b"{}")).code == "unavailable"
    monkeypatch.setattr(schemas.sys, "executable", "/bin/false")
    assert (await refused(checker, 1, TREE, b"{}")).code == "unavailable"


async def test_only_so_many_wait_for_it(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MAX_WAITING", 0)
    refusal = await refused(checker, 1, TREE, b"{}")
    assert refusal.code == "unavailable" and refusal.retry_after_seconds


async def test_it_knows_no_secrets_of_the_replica(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_BOOTSTRAP_KEY", "slk_secret")
    await checker.check((1, 1), TREE, b"{}", "")
    assert checker._process is not None
    environment = Path(f"/proc/{checker._process.pid}/environ")
    assert b"PYTHONPATH" in (given := await asyncio.to_thread(environment.read_bytes)) and b"slk_secret" not in given
