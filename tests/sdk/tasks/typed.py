"""What mypy and pyright make of tasks. Nothing here runs: test_typing.py has both of them read it.

A line that ends in `# refused` is one that both must refuse.
"""

import dataclasses
from datetime import UTC, date, datetime
from typing import Any, assert_type

import msgspec
import pydantic

from sluice_client import (
    Call,
    Context,
    Job,
    Sluice,
    SyncJob,
    SyncSluice,
    SyncTaskRef,
    TaskRef,
    exponential,
    job,
)

sluice = Sluice()
blocking = SyncSluice()


@sluice.task(queue="mail", tries=5, backoff=exponential(1, 600), unique="welcome:{user_id}", key="{user_id}")
async def plain(user_id: int, lang: str = "en") -> str: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
def in_thread(user_id: int) -> list[str]: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
async def first(ctx: Context, user_id: int, lang: str = "en") -> str: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
def first_in_thread(ctx: Context, user_id: int) -> str: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
async def keyword(user_id: int, *, ctx: Context) -> str: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
async def keyword_and_more(user_id: int, lang: str, when: date | None = None, *, ctx: Context) -> str: ...  # type: ignore[empty-body]


@sluice.task(queue="mail")
async def context_alone(*, ctx: Context) -> None: ...


@sluice.task(queue="mail")
async def anything(payload: Any) -> None: ...


@blocking.task(queue="mail")
def sync_first(ctx: Context, user_id: int) -> str: ...  # type: ignore[empty-body]


@blocking.task(queue="mail")
async def sync_keyword(user_id: int, *, ctx: Context) -> str: ...  # type: ignore[empty-body]


class Report(Job, queue="reports", tries=3, backoff=[60, 300, 900]):
    tenant: str
    month: date

    async def run(self, ctx: Context) -> int: ...  # type: ignore[empty-body]


class ReportInThread(Job, queue="reports"):
    tenant: str = "all"

    def run(self) -> int: ...  # type: ignore[empty-body]


class OfPydantic(Job, pydantic.BaseModel, queue="reports"):
    tenant: str

    async def run(self) -> int: ...  # type: ignore[empty-body]


@job(queue="reports", tries=3)
class OfMsgspec(Job, msgspec.Struct):
    tenant: str

    async def run(self) -> int: ...  # type: ignore[empty-body]


@dataclasses.dataclass
class OfDataclass(Job, queue="reports"):
    tenant: str

    async def run(self) -> int: ...  # type: ignore[empty-body]


class SyncReport(SyncJob, queue="reports"):
    tenant: str

    def run(self, ctx: Context) -> int: ...  # type: ignore[empty-body]


async def functions(ctx: Context, when: datetime) -> None:
    assert_type(await plain.dispatch(7), TaskRef[str])
    assert_type(await plain.dispatch(user_id=7, lang="de"), TaskRef[str])
    assert_type(await (await plain.dispatch(7)).wait("5m"), str)
    assert_type(await plain.dispatch_after("5m", 7, lang="de"), TaskRef[str])
    assert_type(await plain.dispatch_at(when, 7), TaskRef[str])
    assert_type(await plain.options(priority=5, idempotency_key="k").dispatch(7), TaskRef[str])
    assert_type(plain.call(7), Call[str])
    assert_type(plain.ref("id"), TaskRef[str])
    assert_type(await plain(7), str)
    assert_type(in_thread(7), list[str])
    assert_type(await in_thread.dispatch(7), TaskRef[list[str]])
    assert_type(await first.dispatch(7, lang="de"), TaskRef[str])
    assert_type(await first.dispatch_after(5, user_id=7), TaskRef[str])
    assert_type(first.call(7), Call[str])
    assert_type(await first(ctx, 7), str)
    assert_type(first_in_thread(ctx, 7), str)
    assert_type(first_in_thread.call(7), Call[str])
    assert_type(await keyword.dispatch(7), TaskRef[str])
    assert_type(await keyword.dispatch(user_id=7), TaskRef[str])
    assert_type(await keyword.options(tries=1).dispatch(7), TaskRef[str])
    assert_type(keyword.call(7), Call[str])
    assert_type(await keyword(7, ctx=ctx), str)
    assert_type(await keyword_and_more.dispatch(7, "de"), TaskRef[str])
    assert_type(await keyword_and_more.dispatch(7, lang="de", when=None), TaskRef[str])
    assert_type(await context_alone.dispatch(), TaskRef[None])
    assert_type(await anything.dispatch({"any": "thing"}), TaskRef[None])
    assert_type(await sluice.dispatch(plain.call(7)), TaskRef[str])
    assert_type(await sluice.dispatch_many([plain.call(n) for n in range(9)]), list[TaskRef[str]])


async def jobs(month: date) -> None:
    assert_type(await Report.dispatch("acme", month), TaskRef[int])
    assert_type(await Report.dispatch(tenant="acme", month=month), TaskRef[int])
    assert_type(await (await Report.dispatch("acme", month)).wait(), int)
    assert_type(await Report.dispatch_after("5m", "acme", month), TaskRef[int])
    assert_type(await Report.options(priority=5).dispatch(tenant="acme", month=month), TaskRef[int])
    assert_type(Report.call("acme", month), Call[int])
    assert_type(Report.ref("id"), TaskRef[int])
    assert_type(await ReportInThread.dispatch(), TaskRef[int])
    assert_type(await OfPydantic.dispatch(tenant="acme"), TaskRef[int])
    assert_type(await OfMsgspec.dispatch("acme"), TaskRef[int])
    assert_type(await OfDataclass.dispatch(tenant="acme"), TaskRef[int])
    assert_type(OfPydantic.call(tenant="acme"), Call[int])
    async with sluice.batch(on_complete=Report.call("all", month)) as batch:
        assert_type(await batch.add(Report.call("acme", month)), TaskRef[int])


def in_blocking_form(ctx: Context) -> None:
    assert_type(sync_first.dispatch(7), SyncTaskRef[str])
    assert_type(sync_first.dispatch(7).wait(), str)
    assert_type(sync_first(ctx, 7), str)
    assert_type(sync_keyword.dispatch(7), SyncTaskRef[str])
    assert_type(SyncReport.dispatch("acme"), SyncTaskRef[int])
    assert_type(blocking.dispatch_many([sync_first.call(7)]), list[SyncTaskRef[str]])
    with blocking.batch() as batch:
        assert_type(batch.add(SyncReport.call(tenant="acme")), SyncTaskRef[int])


async def refusals(ctx: Context) -> None:
    await plain.dispatch("7")  # refused
    await plain.dispatch()  # refused
    await plain.dispatch(7, 8)  # refused
    await plain.dispatch(7, language="de")  # refused
    plain.call("7")  # refused
    plain.options(prio=5)  # refused
    plain.options(priority="high")  # refused
    await plain.dispatch_after([], 7)  # refused
    await plain.dispatch_at("tomorrow", 7)  # refused
    await plain.dispatch_at(datetime.now(UTC))  # refused
    await first.dispatch(ctx, 7)  # refused
    await first.dispatch("7")  # refused
    await first(7)  # refused
    await keyword.dispatch("7")  # refused
    await keyword_and_more.dispatch("7", "de")  # refused
    keyword.call("7")  # refused
    await Report.dispatch("acme", "2026-01")  # refused
    await Report.dispatch("acme")  # refused
    await OfPydantic.dispatch(tenant=7)  # refused
    await OfMsgspec.dispatch(7)  # refused
    await OfDataclass.dispatch(7)  # refused
    Report.call()  # refused
    sync_first.dispatch("7")  # refused
    sluice.schedule("s", plain.call(7), chron="@daily")  # refused
    sluice.queue("q", max_concurrency="many")  # refused
