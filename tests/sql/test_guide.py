"""What the guide says is run: psycopg, SQLAlchemy and Django, with commit, rollback and savepoints."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from tests.docs.pages import ROOT, blocks, files
from tests.sluices import Replica
from tests.sql.conftest import Connect, address_as
from tests.wire.api import Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

GUIDE = ROOT / "docs" / "guides" / "enqueue-in-your-transaction.md"
DJANGO = """
import os, urllib.parse
import django
from django.conf import settings
given = urllib.parse.urlsplit(os.environ["APP_DATABASE_URL"])
query = urllib.parse.parse_qs(given.query)
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": given.path[1:], "USER": given.username,
    "HOST": query["host"][0], "PORT": query["port"][0]}})
django.setup()
"""
THREE_WAYS = {"with_psycopg.py": "", "with_sqlalchemy.py": "", "with_django.py": DJANGO}
ROLLED_BACK = {
    "psycopg": """
import os, psycopg
with psycopg.connect(os.environ["APP_DATABASE_URL"]) as connection:
    enqueue = lambda n: connection.execute("select sluice.enqueue('mail', %s)", [n])
    enqueue("1")
    with connection.transaction(force_rollback=True):
        enqueue("2")
    with connection.transaction():
        enqueue("3")
    connection.commit()
    enqueue("4")
    connection.rollback()
""",
    "sqlalchemy": """
import os
from sqlalchemy import create_engine, func
from sqlalchemy.orm import Session
engine = create_engine(os.environ["APP_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
with Session(engine) as session:
    enqueue = lambda n: session.scalar(func.sluice.enqueue("mail", n))
    enqueue("1")
    savepoint = session.begin_nested()
    enqueue("2")
    savepoint.rollback()
    with session.begin_nested():
        enqueue("3")
    session.commit()
    enqueue("4")
    session.rollback()
""",
    "django": DJANGO
    + """
from django.db import connection, transaction
def enqueue(n):
    with connection.cursor() as cursor:
        cursor.execute("select sluice.enqueue('mail', %s)", [n])
class Undo(Exception): ...
with transaction.atomic():
    enqueue("1")
    try:
        with transaction.atomic():
            enqueue("2")
            raise Undo
    except Undo:
        pass
    with transaction.atomic():
        enqueue("3")
try:
    with transaction.atomic():
        enqueue("4")
        raise Undo
except Undo:
    pass
""",
}


@pytest.fixture
async def mail(shared: Replica, api: Api, shared_role: str) -> AsyncIterator[Callable[[], Any]]:
    """The guide's queue and table; answers the payloads of its tasks."""
    good(await api.put("/queues/mail", json={}), 201)
    db = shared.sluice.core.db
    await db.fetch("create table public.orders (customer text)")
    await db.fetch(f"grant insert, select on public.orders to {shared_role}")

    async def waiting() -> list[dict[str, Any]]:
        """Newest first, without those that other tests have left."""
        tasks = await api.pages("/tasks", queue="mail", include="payload")
        return [task for task in tasks if task["state"] != "cancelled"]

    yield waiting
    await db.fetch("drop table public.orders")
    good(await api.post("/queues/mail/purge"), 202)
    while (await api.delete("/queues/mail")).status_code == 409:
        await asyncio.sleep(0.05)


async def run(program: str, url: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={**os.environ, "APP_DATABASE_URL": url}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().strip()


async def test_each_program_of_the_guide_commits_a_task_with_its_row(
    mail: Callable[[], Any], shared: Replica, shared_url: str, shared_role: str
) -> None:
    programs = files(GUIDE)
    assert programs.keys() == THREE_WAYS.keys()
    for n, (name, before) in enumerate(THREE_WAYS.items(), 1):
        task_id = await run(before + programs[name], address_as(shared_url, shared_role))
        tasks = await mail()
        assert (len(tasks), tasks[0]["id"], tasks[0]["payload"]) == (n, task_id, {"to": "ada"})
        assert await shared.sluice.core.db.fetchval("select count(*) from public.orders") == n


async def test_the_sql_of_the_guide_runs_as_it_stands(mail: Callable[[], Any], connect: Connect) -> None:
    session = await connect()
    for text in blocks(GUIDE, "sql"):
        await session.execute(text)
    assert sorted(task["tags"] for task in await mail()) == [[], [], ["welcome"]]


@pytest.mark.parametrize("library", ROLLED_BACK)
async def test_what_is_rolled_back_was_never_enqueued(
    library: str, mail: Callable[[], Any], shared_url: str, shared_role: str
) -> None:
    await run(ROLLED_BACK[library], address_as(shared_url, shared_role))
    assert [task["payload"] for task in await mail()] == [3, 1]


async def test_it_works_through_a_transaction_pooler(
    mail: Callable[[], Any], shared_url: str, shared_role: str
) -> None:
    from tests.poolers import pgbouncer

    async with pgbouncer(address_as(shared_url, shared_role), "transaction") as address:
        connection = await asyncpg.connect(address, statement_cache_size=0)
        for n in range(3):
            async with connection.transaction():
                await connection.fetchval("select sluice.enqueue('mail', $1)", str(n))
        await connection.close()
    assert [task["payload"] for task in await mail()] == [2, 1, 0]
