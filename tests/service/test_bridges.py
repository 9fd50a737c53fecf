"""Handlers of kind sqs and redis_stream: what is kept, hidden and refused, and what their tasks become."""

import json
from typing import Any

import pytest
from msgspec import UNSET, structs

from app.domain.bodies import read
from app.domain.bridges import AwsCredentials, SqsAddress, StreamAddress
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.errors import Refusal
from app.domain.handlers import HandlerBody, HandlerDefinition
from app.runtime.core import Core
from app.service import handlers
from app.store import handlers as handler_rows

QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"
GIVEN = AwsCredentials("AKIAIOSFODNN7EXAMPLE", "hush-hush", "token-hush")
SQS = HandlerDefinition(kind="sqs", queue_url=QUEUE, region="eu-central-1", credentials=GIVEN)

pytestmark = pytest.mark.anyio


async def stored(core: Core, caller: Caller, name: str) -> HandlerDefinition:
    handler_id = await handler_rows.id_of(core.db, caller.tenant_id, name)
    assert handler_id is not None
    row = await handler_rows.read(core.db, core.vault, handler_id)
    assert row is not None
    return row.view.definition


async def refused(core: Core, caller: Caller, definition: HandlerDefinition, secret: str | None = None) -> Refusal:
    with pytest.raises(Refusal) as found:
        await handlers.put(core, caller, "orders", definition, secret, ANY)
    return found.value


async def test_an_sqs_handler_is_stored_whole_and_shown_without_its_secrets(core: Core, caller: Caller) -> None:
    saved = await handlers.put(core, caller, "orders", SQS, None, ANY)
    assert saved.created and saved.secret is None
    shown, _ = await handlers.get(core, caller, "orders")
    assert "hush" not in repr(shown) and shown.definition.credentials is UNSET
    assert await stored(core, caller, "orders") == SQS
    handler_id = await handler_rows.id_of(core.db, caller.tenant_id, "orders")
    target = await handler_rows.load_target(core.db, core.vault, handler_id or 0)
    assert target is not None and not target.secrets_lost
    assert target.address == SqsAddress(queue_url=QUEUE, region="eu-central-1", credentials=GIVEN)
    assert "hush" not in repr(target)
    (row,) = await core.db.fetch("select * from sluice.handlers where id = $1", handler_id)
    assert b"hush" not in row["sealed_address"] and "hush" not in repr(dict(row))


async def test_credentials_are_kept_unless_others_are_given(core: Core, caller: Caller) -> None:
    first = await handlers.put(core, caller, "orders", SQS, None, ANY)
    without = structs.replace(SQS, credentials=UNSET)
    again = await handlers.put(core, caller, "orders", without, None, ANY)
    assert again.etag == first.etag and (await stored(core, caller, "orders")).credentials == GIVEN
    other = structs.replace(SQS, credentials=AwsCredentials("AKIAIOSFODNN7EXAMPLE", "another"))
    changed = await handlers.put(core, caller, "orders", other, None, ANY)
    assert changed.etag != first.etag and (await stored(core, caller, "orders")).credentials == other.credentials
    await handlers.put(core, caller, "orders", structs.replace(SQS, credentials=None), None, ANY)
    assert (await stored(core, caller, "orders")).credentials is None


async def test_the_credentials_of_the_service_are_for_its_operator(core: Core, caller: Caller) -> None:
    manager = Caller(caller.tenant_id, caller.tenant, "manage")
    chain = structs.replace(SQS, credentials=UNSET)
    assert (await refused(core, manager, chain)).code == "forbidden"
    await handlers.put(core, caller, "orders", chain, None, ANY)
    assert (await refused(core, manager, structs.replace(chain, description="mine now"))).code == "forbidden"


async def test_without_the_library_the_usual_chain_is_refused(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refusal = await refused(core, caller, structs.replace(SQS, credentials=None))
    assert refusal.code == "bridge_unavailable" and "sluice-queue[aws]" in refusal.detail
    await handlers.put(core, caller, "orders", SQS, None, ANY)  # needs no library


async def test_a_handler_may_change_its_kind(core: Core, caller: Caller) -> None:
    hook = HandlerDefinition("https://example.com/hook")
    made = await handlers.put(core, caller, "orders", hook, None, ANY)
    assert made.secret is not None
    turned = await handlers.put(core, caller, "orders", SQS, None, ANY)
    assert turned.secret is None and turned.view.definition.url is UNSET
    back = await handlers.put(core, caller, "orders", hook, None, ANY)
    assert back.secret is not None and back.secret != made.secret
    assert await stored(core, caller, "orders") == hook
    assert (await refused(core, caller, structs.replace(SQS, credentials=UNSET, kind="redis_stream"))).code == "invalid"


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({"kind": "webhook"}, ["/url"]),
        ({"kind": "sqs"}, ["/queue_url", "/region"]),
        ({"kind": "sqs", "url": "https://a.example", "queue_url": QUEUE, "region": "eu-central-1"}, ["/url"]),
        (
            {"kind": "sqs", "queue_url": QUEUE, "region": "r", "headers": {"a": "b"}, "targets": "any", "maxlen": 5},
            ["/headers", "/targets", "/maxlen"],
        ),
        ({"kind": "redis_stream", "url": "http://a.example", "stream": "s"}, ["/url"]),
        ({"kind": "redis_stream", "url": "redis://a.example"}, ["/stream"]),
        ({"url": "https://a.example", "stream": "s", "queue_url": QUEUE}, ["/queue_url", "/stream"]),
        ({"url": "https://a.example", "group_id_from": "key"}, ["/group_id_from"]),
        ({"kind": "sqs", "queue_url": "nowhere", "region": "A B"}, ["/queue_url", "/region"]),
    ],
)
async def test_fields_belong_to_their_kind(
    core: Core, caller: Caller, given: dict[str, Any], pointers: list[str]
) -> None:
    refusal = await refused(core, caller, read(given, HandlerBody).definition)
    assert refusal.code == "invalid" and sorted(error.pointer for error in refusal.errors) == sorted(pointers)


async def test_the_address_of_a_bridge_is_guarded_like_a_url(core: Core, caller: Caller) -> None:
    inside = structs.replace(SQS, queue_url="http://10.0.0.1/1/q")
    metadata = structs.replace(SQS, endpoint_url="http://169.254.169.254")
    for definition, where in ((inside, "/queue_url"), (metadata, "/endpoint_url")):
        refusal = await refused(core, caller, definition)
        assert refusal.code == "egress_denied" and [error.pointer for error in refusal.errors] == [where]


async def test_a_bridge_signs_nothing(core: Core, caller: Caller) -> None:
    secret = "whsec_" + "A" * 32
    assert [error.pointer for error in (await refused(core, caller, SQS, secret)).errors] == ["/secret"]
    await handlers.put(core, caller, "orders", SQS, None, ANY)
    with pytest.raises(Refusal, match="signs nothing"):
        await handlers.rotate_secret(core, caller, "orders", 0.0)


async def test_a_damaged_address_is_not_used_and_is_mended_by_a_put_with_credentials(
    core: Core, caller: Caller
) -> None:
    await handlers.put(core, caller, "orders", SQS, None, ANY)
    await core.db.fetch("update sluice.handlers set sealed_address = 'x'::bytea")
    view, _ = await handlers.get(core, caller, "orders")
    assert view.secrets_lost
    tried = await handlers.test(core, caller, "orders", b"{}")
    assert tried["outcome"] == "failed" and "cannot be read" in tried["error"]
    await handlers.put(core, caller, "orders", SQS, None, ANY)
    assert not (await handlers.get(core, caller, "orders"))[0].secrets_lost


async def test_the_audit_says_that_a_secret_changed_and_not_which(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "orders", SQS, None, ANY)
    other = structs.replace(SQS, credentials=AwsCredentials("AKIAIOSFODNN7EXAMPLE", "hush-too"))
    await handlers.put(core, caller, "orders", other, None, ANY)
    rows = await core.db.fetch("select before, after from sluice.audit where noun = 'handler' order by id")
    created, changed = rows[-2], rows[-1]
    assert json.loads(created["after"])["credentials"] == "***"
    assert json.loads(changed["before"]) == json.loads(changed["after"]) == {"credentials": "***"}
    assert "hush" not in repr([dict(row) for row in rows])


def test_a_stream_address_does_not_show_its_password() -> None:
    assert "hush" not in repr(StreamAddress(url="redis://:hush@a.example", stream="s"))
