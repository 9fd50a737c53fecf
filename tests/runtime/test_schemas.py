"""The processes that compile and check what may be costly: shared in turns, paid for, ended, started again, out of the way."""

import asyncio
import json
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.allowances import Allowance
from app.domain.errors import Refusal
from app.runtime import schema_pool, schemas
from app.runtime.schemas import CheckBudget, SchemaChecker
from tests.support import poll

pytestmark = pytest.mark.anyio

A, B = 1, 2
TREE = '{"properties": {"a": {"$ref": "#"}}}'
DOUBLING = (
    '{"$id": "http://x/", "$defs": {"other": {"$id": "o"}, '
    + ", ".join(
        f'"d{n}": {{"allOf": [{{"$ref": "#/$defs/d{n + 1}"}}, {{"$ref": "#/$defs/d{n + 1}"}}]}}' for n in range(40)
    )
    + ', "d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}'
)
"""Applies its last definition 2^40 times, and has an `$id` inside, so that nobody can tell beforehand."""
LETTERS = json.dumps({"allOf": [{"pattern": rf"\pL\pL\pL{n}"} for n in range(300)]})
"""Compiles in a fifth of a second, of which its length says nothing."""
MAIL = json.dumps({"properties": {f"p{n}": {"type": "string", "pattern": "^[a-z]+$"} for n in range(40)}})
"""Too long to be judged at a glance, and harmless."""


@pytest.fixture
async def checker() -> AsyncIterator[SchemaChecker]:
    made = SchemaChecker()
    yield made
    await made.close()


def checking(checker: SchemaChecker) -> list[Process]:
    return checker._checkers.processes


async def refused(checker: SchemaChecker, schema: str, payload: bytes, tenant: int = A, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await checker.check(tenant, schema, payload, "/tasks/3", **more)
    return refusal.value


async def test_a_plain_schema_needs_no_process(checker: SchemaChecker) -> None:
    schema = '{"type": "integer"}'
    assert await checker.compile(A, schema) == []
    await checker.check(A, schema, b"1", "")
    refusal = await refused(checker, schema, b'"a"')
    assert (refusal.code, refusal.errors[0].pointer) == ("payload_schema_mismatch", "/tasks/3/payload")
    assert not checking(checker) and not checker._compilers.processes


async def test_what_was_compiled_quickly_beside_is_checked_without_a_process(checker: SchemaChecker) -> None:
    assert await checker.compile(A, MAIL) == []
    assert len(checker._compilers.processes) == 1
    await checker.check(A, MAIL, b'{"p1": "a"}', "")
    assert (await refused(checker, MAIL, b'{"p1": 1}')).errors[0].pointer == "/tasks/3/payload/p1"
    assert not checking(checker)


async def test_what_compiles_slowly_is_never_compiled_here(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "try_compile", None)
    for schema in (
        LETTERS,
        json.dumps({"pattern": r"\pL" * 15}),
        json.dumps({"pattern": ".{800}"}),
        '{"pattern": "%s"}' % ("a?" * 300),
    ):
        assert await checker.compile(A, schema) == []
        await checker.check(A, schema, b"1", "")


async def test_a_schema_is_compiled_once_however_many_queues_and_requests_have_it(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = checker._compilers.ask

    async def counted(request: Any) -> Any:
        asked.append(request.schema)
        return await ask(request)

    monkeypatch.setattr(checker._compilers, "ask", counted)
    await asyncio.gather(*(checker.check(A, MAIL, b"{}", "") for _ in range(60)))
    assert await checker.compile(A, MAIL) == []
    assert asked == [MAIL]


async def test_what_is_kept_is_bounded(checker: SchemaChecker) -> None:
    for n in range(1_000):
        await checker.check(A, json.dumps({"const": n}), b"%d" % n, "")
    assert 300 < len(checker._kept) < 600


async def test_a_check_is_ended_when_its_time_is_up_and_the_next_one_answered(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 0.2)
    slow = asyncio.create_task(refused(checker, DOUBLING, b"1"))
    await asyncio.gather(*(checker.check(A, TREE, b'{"a": {}}', "") for _ in range(5)))
    refusal = await slow
    assert refusal.code == "payload_schema_mismatch" and "0.2 seconds" in refusal.detail


async def test_costly_checks_of_one_tenant_leave_a_process_and_the_compiler_to_another(checker: SchemaChecker) -> None:
    await checker.check(B, TREE, b"{}", "")
    hammering = [asyncio.create_task(refused(checker, DOUBLING, b"1")) for _ in range(5)]
    await poll(lambda: checker._checkers._busy)
    for _ in range(20):
        await checker.check(B, TREE, b'{"a": {}}', "")
        assert len(checker._checkers._busy) == 1 and not any(task.done() for task in hammering)
    assert await checker.compile(B, MAIL) == [] and not any(task.done() for task in hammering)
    for task in hammering:
        task.cancel()


async def test_a_tenant_has_so_much_processor_time_and_no_more(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(checker._checkers, "_allowance", Allowance(rate=0.01, burst=0.3))
    answers = await asyncio.gather(*(refused(checker, DOUBLING, b"1") for _ in range(5)))
    assert {answer.code for answer in answers} == {"payload_schema_mismatch", "unavailable"}
    refusal = await refused(checker, TREE, b"{}")
    assert refusal.code == "unavailable" and "0.3 seconds in a burst" in refusal.detail
    assert (refusal.retry_after_seconds or 0) >= 1
    await checker.check(B, TREE, b"{}", "")


async def test_the_checks_of_one_request_share_what_it_may_take(checker: SchemaChecker) -> None:
    budget = CheckBudget(0.1)
    refusal = await refused(checker, DOUBLING, b"1", budget=budget)
    assert refusal.code == "unavailable" and "of this request" in refusal.detail
    began = time.monotonic()
    assert [(await refused(checker, TREE, b"{}", budget=budget)).code for _ in range(100)] == ["unavailable"] * 100
    assert time.monotonic() - began < 1
    await checker.check(A, TREE, b"{}", "", CheckBudget())


async def test_one_that_was_not_compiled_in_time_gets_another_chance(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "COMPILE_SECONDS", 0.05)
    [error] = await checker.compile(A, LETTERS)
    assert "could not be compiled within 0.05 seconds" in error.detail
    monkeypatch.setattr(schemas, "COMPILE_SECONDS", 10)
    assert await checker.compile(A, LETTERS) == []


async def test_a_process_that_was_killed_is_started_again(checker: SchemaChecker) -> None:
    await checker.check(A, TREE, b"{}", "")
    [first] = checking(checker)
    first.kill()
    await first.wait()
    await checker.check(A, TREE, b"{}", "")
    assert checking(checker) != [first]


async def test_one_who_gave_up_leaves_no_answer_for_the_next(checker: SchemaChecker) -> None:
    await checker.check(A, TREE, b"{}", "")
    assert await checker.compile(A, DOUBLING) == []
    waiting = asyncio.create_task(checker.check(A, DOUBLING, b"1", ""))
    await poll(lambda: checker._checkers._busy)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await checker.check(A, TREE, b"{}", "")


async def test_one_who_gave_up_takes_no_verdict_from_others(checker: SchemaChecker) -> None:
    first = asyncio.create_task(checker.compile(A, MAIL))
    second = asyncio.create_task(checker.compile(A, MAIL))
    await poll(lambda: checker._compilers._busy)
    first.cancel()
    assert await second == []


async def test_a_process_that_others_killed_is_no_verdict(checker: SchemaChecker) -> None:
    waiting = asyncio.create_task(refused(checker, DOUBLING, b"1"))
    await poll(lambda: checker._checkers._busy)
    checking(checker)[0].kill()
    assert (await waiting).code == "unavailable"


async def test_without_a_process_nothing_is_taken(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.runtime.schema_pool.sys.executable", "/nowhere/python")
    assert (await refused(checker, TREE, b"{}")).code == "unavailable"
    monkeypatch.setattr("app.runtime.schema_pool.sys.executable", "/bin/false")
    assert (await refused(checker, TREE, b"{}")).code == "unavailable"


async def test_only_so_many_of_a_tenant_wait_for_it(checker: SchemaChecker) -> None:
    await checker.check(A, TREE, b"{}", "")
    assert await checker.compile(A, DOUBLING) == []
    waiting = [asyncio.create_task(checker.check(A, DOUBLING, b"1", "")) for _ in range(schema_pool.MAX_WAITING + 1)]
    await poll(lambda: checker._checkers._turns.waiting(A) == schema_pool.MAX_WAITING)
    refusal = await refused(checker, TREE, b"{}")
    assert refusal.code == "unavailable" and refusal.retry_after_seconds
    await checker.check(B, TREE, b"{}", "")
    for task in waiting:
        task.cancel()


async def test_at_the_end_those_who_wait_are_refused_at_once(checker: SchemaChecker) -> None:
    waiting = [asyncio.create_task(refused(checker, DOUBLING, b"1")) for _ in range(5)]
    await poll(lambda: checker._checkers._busy)
    await checker.close()
    async with asyncio.timeout(1):
        assert {refusal.code for refusal in await asyncio.gather(*waiting)} == {"unavailable"}
    assert (await refused(checker, TREE, b"{}")).code == "unavailable"


async def test_it_knows_no_secrets_of_the_replica(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_BOOTSTRAP_KEY", "slk_secret")
    await checker.check(A, TREE, b"{}", "")
    environment = Path(f"/proc/{checking(checker)[0].pid}/environ")
    assert b"PYTHONPATH" in (given := await asyncio.to_thread(environment.read_bytes)) and b"slk_secret" not in given
