"""Who may enqueue in SQL, for whom, and that such a role can do nothing else in the schema."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from app.domain.errors import Refusal
from app.domain.keys import Grant
from app.service import keys, roles
from app.store import partitions
from tests.sluices import Replica
from tests.sql.conftest import Connect, admit, drop_role, made_role
from tests.wire.api import Api, fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

MakeRole = Callable[..., Awaitable[str]]
ENQUEUE = "select sluice.enqueue($1, '1')"


@pytest.fixture
async def make_role(shared_url: str) -> AsyncIterator[MakeRole]:
    """Makes roles, and admits those for which a tenant is given."""
    async with AsyncExitStack() as stack:

        async def make(tenant: str | None = None, *, options: str = "login", queues: Any = None) -> str:
            role = await made_role(shared_url, options=options)
            stack.push_async_callback(drop_role, shared_url, role)
            if tenant is not None:
                await admit(shared_url, role, tenant, queues)
            return role

        yield make


async def refused(session: Any, statement: str, *arguments: Any) -> str:
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as error:
        await session.fetch(statement, *arguments)
    return str(error.value)


async def test_an_admitted_role_can_do_nothing_else_in_the_schema(
    session: Any, shared: Replica, shared_role: str, api: Api
) -> None:
    db = shared.sluice.core.db
    await partitions.ensure_ahead(db)
    relations = await db.fetch(
        "select relname, relkind from pg_class where relnamespace = 'sluice'::regnamespace and relkind in ('r', 'p', 'v', 'm',"
        " 'S', 'f')"
    )
    assert {row["relkind"] for row in relations} >= {b"r", b"p", b"S"}
    for row in relations:
        name = f'sluice."{row["relname"]}"'
        if row["relkind"] == b"S":
            await refused(session, f"select last_value from {name}")
            await refused(session, f"select nextval('{name}')")
            continue
        await refused(session, f"select * from {name} limit 1")
        async with session.transaction():
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with session.transaction():
                    await session.execute(f"lock {name}")
        for statement in (
            f"insert into {name} default values",
            f"delete from {name}",
            f"truncate {name}",
        ):
            await refused(session, statement)
    functions = await db.fetch(
        "select p.oid::regprocedure::text as name, p.proname, p.prokind, array(select format('null::%s', format_type(t, null))"
        " from unnest(p.proargtypes) t) as arguments, p.prorettype = 'trigger'::regtype or p.proisstrict as unsaid"
        " from pg_proc p where pronamespace = 'sluice'::regnamespace"
    )
    may = {row["name"] for row in functions if row["proname"] in ("enqueue", "enqueue_many")}
    assert len(may) == 3
    for row in functions:
        allowed = await session.fetchval(
            "select has_function_privilege($1::text::regprocedure::oid, 'execute')", row["name"]
        )
        assert allowed == (row["name"] in may), row["name"]
        # of a trigger, and of a strict function of nulls, nothing is called
        if not allowed and not row["unsaid"]:
            await refused(session, f"select sluice.{row['proname']}({', '.join(row['arguments'])})")
    await refused(session, "create table sluice.mine (n int)")
    await session.execute(
        "grant execute on function sluice.enqueue(text, text, jsonb) to public"
    )  # grants nothing, and warns
    assert not await db.fetchval(
        "select bool_or(has_function_privilege('public', p.oid, 'execute')) from pg_proc p"
        " where pronamespace = 'sluice'::regnamespace"
    )


async def test_who_is_not_admitted_can_call_nothing(make_role: MakeRole, connect: Connect, api: Api) -> None:
    queue = await api.queue()
    session = await connect(await make_role())
    assert "schema sluice" in await refused(session, ENQUEUE, queue)


async def test_a_role_enqueues_for_its_tenant_alone(
    make_role: MakeRole, connect: Connect, shared: Replica, api: Api
) -> None:
    await keys.create(shared.sluice.core.db, "sql-other", Grant("manage"))
    queue = await api.queue()
    stranger = await connect(await make_role("sql-other"))
    with pytest.raises(asyncpg.PostgresError, match="queue_not_found") as error:
        await stranger.fetchval(ENQUEUE, queue)
    assert error.value.sqlstate == "SL404"


async def test_a_role_confined_to_queues_sees_no_others(make_role: MakeRole, connect: Connect, api: Api) -> None:
    mine, other, handler = fresh("a_b"), await api.queue(), await api.handler("http://127.0.0.1:9/")
    await api.put(f"/queues/{mine}", json={})
    await api.put(f"/queues/{mine.replace('_', 'x')}", json={})
    limit = await api.limit(max_concurrency=1)
    session = await connect(await make_role("default", queues=["a_b-*", "nothing"]))
    assert await session.fetchval(ENQUEUE, mine)
    for name in (other, mine.replace("_", "x")):
        with pytest.raises(asyncpg.PostgresError, match="queue_not_found"):
            await session.fetchval(ENQUEUE, name)
    for options, where in (
        (f'{{"callbacks": {{"dead": {{"queue": "{other}"}}}}}}', "/callbacks/dead/queue"),
        (f'{{"limits": [{{"name": "{limit}"}}]}}', "/limits/0/name"),
    ):
        with pytest.raises(asyncpg.PostgresError) as error:
            await session.fetchval("select sluice.enqueue($1, '1', $2)", mine, options)
        assert (error.value.sqlstate, error.value.detail) == ("SL422", where)
    pushed = fresh("a_b")
    await api.put(f"/queues/{pushed}", json={"handler": await api.handler("http://127.0.0.1:9/")})
    with pytest.raises(asyncpg.PostgresError, match=f"no handler {handler}"):
        await session.fetchval("select sluice.enqueue($1, '1', $2)", pushed, f'{{"handler": "{handler}"}}')


async def test_the_tenant_is_that_of_the_role_that_is_set(
    make_role: MakeRole, connect: Connect, shared: Replica, api: Api
) -> None:
    db = shared.sluice.core.db
    await keys.create(db, "sql-other", Grant("manage"))
    one, other = await make_role("default"), await make_role("sql-other")
    member, both, outside = await make_role(), await make_role(), await make_role(options="login noinherit")
    for role in (member, both, outside):
        await db.fetch(f"grant {one} to {role}")
    await db.fetch(f"grant {other} to {both}")
    queue = await api.queue()
    assert await (await connect(member)).fetchval(ENQUEUE, queue)
    session = await connect(both)
    assert "different tenants" in await refused(session, ENQUEUE, queue)
    await session.execute(f"set role {one}")
    assert await session.fetchval(ENQUEUE, queue)
    await session.execute(f"set role {other}")
    with pytest.raises(asyncpg.PostgresError, match="queue_not_found"):
        await session.fetchval(ENQUEUE, queue)
    session = await connect(outside)
    await refused(session, ENQUEUE, queue)
    await session.execute(f"set role {one}")
    assert await session.fetchval(ENQUEUE, queue)


async def test_a_function_of_others_does_not_lend_its_owners_tenant(
    make_role: MakeRole, connect: Connect, shared: Replica, api: Api
) -> None:
    owner, visitor, db = await make_role("default"), await make_role(), shared.sluice.core.db
    await db.fetch(
        "create function public.lend(q text) returns uuid language sql security definer return sluice.enqueue(q, '1'::text)"
    )
    await db.fetch(f"alter function public.lend owner to {owner}")
    session = await connect(visitor)
    assert "may enqueue for no tenant" in await refused(session, "select public.lend($1)", await api.queue())


async def test_a_role_has_one_tenant_and_what_is_granted_can_be_taken_back(
    make_role: MakeRole, connect: Connect, shared: Replica, api: Api
) -> None:
    db, role, queue = shared.sluice.core.db, await make_role("default"), await api.queue()
    await keys.create(db, "sql-other", Grant("manage"))
    with pytest.raises(Refusal, match="revoke that first"):
        await roles.grant(db, role, "sql-other", None)
    with pytest.raises(Refusal, match="no role"):
        await roles.grant(db, "no-such-role", "default", None)
    with pytest.raises(Refusal, match="no tenant"):
        await roles.grant(db, role, "no-such-tenant", None)
    with pytest.raises(Refusal, match="queue"):
        await roles.grant(db, role, "default", ["a b"])
    session = await connect(role)
    assert await session.fetchval(ENQUEUE, queue)
    await roles.grant(db, role, "default", ["other-*"])
    with pytest.raises(asyncpg.PostgresError, match="queue_not_found"):
        await session.fetchval(ENQUEUE, queue)
    assert [one.queues for one in await roles.list_roles(db) if one.role == role] == [("other-*",)]
    assert await roles.revoke(db, role)
    assert not await roles.revoke(db, role)
    assert "schema sluice" in await refused(session, ENQUEUE, queue)


async def test_who_takes_the_name_of_a_dropped_role_does_not_take_its_grant(
    make_role: MakeRole, connect: Connect, shared: Replica, api: Api
) -> None:
    db = shared.sluice.core.db
    await keys.create(db, "sql-other", Grant("manage"))
    group, gone = await make_role("default"), await make_role("sql-other")
    await db.fetch(f"drop owned by {gone}")
    await db.fetch(f"drop role {gone}")
    await db.fetch(f"create role {gone} login in role {group}")
    assert await (await connect(gone)).fetchval(ENQUEUE, await api.queue()), "it enqueues for its group's tenant"
    await db.fetch(f"revoke {group} from {gone}")
    assert "schema sluice" in await refused(await connect(gone), ENQUEUE, await api.queue())
