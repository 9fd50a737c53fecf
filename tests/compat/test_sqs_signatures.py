"""Who may call over the SQS wire: access keys, and what botocore signs with them."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app.compat.sqs import app as wire
from app.compat.sqs.calls import Call, Operation
from app.compat.sqs.model import ListQueues
from app.domain.ids import make_api_key
from app.domain.instants import format_instant
from app.domain.keys import Grant, KeyIssued
from app.service import keys
from app.settings import Settings
from tests.compat.sqs import refusal
from tests.databases import create_database, drop_database
from tests.sluices import Replica, SluiceProcess, replica_with

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

BODY = b'{"QueueNamePrefix":"a"}'
TARGET = "AmazonSQS.ListQueues"


@pytest.fixture(scope="module")
async def guarded(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    """A replica that asks for keys, with the SQS wire open."""
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    given = {"database_url": url, "port": 0, "sqs_port": 0, "drain_grace_seconds": 0}
    async with replica_with(Settings.model_validate({**given, "bootstrap_key": make_api_key().text})) as replica:
        yield replica
    await drop_database(server_url, name)


@pytest.fixture
async def key(guarded: Replica) -> KeyIssued:
    core = guarded.sluice.core
    return await keys.create(core.db, f"t{uuid4().hex[:8]}", Grant("use", kind="aws"), core.vault)


@pytest.fixture
def who(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every call that reaches ListQueues or PurgeQueue."""
    calls: list[Call] = []

    async def run(call: Call, given: ListQueues) -> dict[str, Any]:
        calls.append(call)
        return {"QueueUrls": []}

    for name in ("ListQueues", "PurgeQueue"):
        monkeypatch.setitem(wire.OPERATIONS, name, Operation(ListQueues, "use", run))
    return calls


def signed(
    url: str,
    key_id: str,
    secret: str,
    *,
    body: bytes = BODY,
    at: datetime | None = None,
    service: str = "sqs",
    region: str = "eu-central-1",
    headers: dict[str, str] | None = None,
    token: str | None = None,
) -> dict[str, str]:
    """Return the headers of a request as botocore signs them."""
    given = headers or {"content-type": "application/x-amz-json-1.0", "x-amz-target": TARGET}
    request = AWSRequest("POST", url, headers=given, data=body)
    signer = SigV4Auth(Credentials(key_id, secret, token), service, region)
    if at is None:
        signer.add_auth(request)
    else:
        request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
        request.headers["X-Amz-Date"] = request.context["timestamp"]
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        signer._inject_signature_to_request(request, signature)
    return {name.lower(): value for name, value in request.headers.items()}


async def post(url: str, headers: dict[str, str], body: bytes = BODY) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        return await client.post(url, content=body, headers=headers)


async def test_what_botocore_signs_with_an_access_key_is_from_its_tenant(
    guarded: Replica, key: KeyIssued, who: list[Call]
) -> None:
    url = guarded.sluice.wires["sqs"]
    reply = await post(f"{url}/", signed(f"{url}/", key.id, key.token))
    assert (reply.status_code, reply.json()) == (200, {"QueueUrls": []})
    (call,) = who
    assert (call.caller.tenant, call.caller.key_id, call.region) == (key.tenant, key.id, "eu-central-1")
    assert call.account == str(123_456_789_011 + call.caller.tenant_id)
    assert call.queue_url("q") == f"{url}/{call.account}/q" and call.queue_name(call.queue_url("q")) == "q"


async def test_the_path_and_the_query_are_signed_as_they_stand(
    guarded: Replica, key: KeyIssued, who: list[Call]
) -> None:
    url = guarded.sluice.wires["sqs"] + "/123456789012/a%20queue.fifo"
    assert (await post(url, signed(url, key.id, key.token))).status_code == 200
    assert refusal(await post(url + "x", signed(url, key.id, key.token)), "SignatureDoesNotMatch")
    assert len(who) == 1


async def test_nothing_that_was_signed_can_be_changed(guarded: Replica, key: KeyIssued, who: list[Call]) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    good = signed(url, key.id, key.token)
    changed = [
        ({**good, "x-amz-target": "AmazonSQS.PurgeQueue"}, BODY),
        ({**good, "host": "example.com"}, BODY),
        (good, BODY + b" "),
        (good, b""),
        (
            {**good, "authorization": good["authorization"][:-1] + ("0" if good["authorization"][-1] != "0" else "1")},
            BODY,
        ),
        (signed(url, key.id, "another secret"), BODY),
        (signed(url, key.id, key.token, service="sts"), BODY),
        (signed(url, key.id, key.token, service="s3"), BODY),
        ({**good, "x-amz-content-sha256": "0" * 64}, BODY),
    ]
    for headers, body in changed:
        refusal(await post(url, headers, body), "SignatureDoesNotMatch")
    assert who == []


async def test_the_headers_that_decide_must_be_signed(guarded: Replica, key: KeyIssued, who: list[Call]) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    unsigned = signed(url, key.id, key.token, headers={"content-type": "application/x-amz-json-1.0"})
    said = refusal(await post(url, {**unsigned, "x-amz-target": TARGET}), "SignatureDoesNotMatch")
    assert "x-amz-target" in said
    assert who == []


async def test_a_signature_is_good_for_a_quarter_of_an_hour(guarded: Replica, key: KeyIssued, who: list[Call]) -> None:
    url, now = guarded.sluice.wires["sqs"] + "/", datetime.now(UTC)
    for minutes, ok in ((-14, True), (14, True), (-16, False), (16, False)):
        reply = await post(url, signed(url, key.id, key.token, at=now + timedelta(minutes=minutes)))
        if ok:
            assert reply.status_code == 200
        else:
            assert "15 min" in refusal(reply, "SignatureDoesNotMatch")


async def test_what_is_no_signature_of_a_header_is_refused_with_a_reason(
    guarded: Replica, key: KeyIssued, who: list[Call]
) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    good = signed(url, key.id, key.token)
    bare = {"content-type": "application/x-amz-json-1.0", "x-amz-target": TARGET}
    refusal(await post(url, bare), "MissingAuthenticationToken")
    for authorization in ("Bearer slk_x", "AWS4-HMAC-SHA256 x", "AWS4-HMAC-SHA256 " + "x" * 5_000):
        refusal(await post(url, {**bare, "authorization": authorization}), "IncompleteSignature")
    refusal(await post(url + "?X-Amz-Signature=x", good), "IncompleteSignature")
    for hashed in ("UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
        headers = {**bare, "x-amz-content-sha256": hashed}
        reply = await post(url, signed(url, key.id, key.token, headers=headers))
        assert hashed in refusal(reply, "IncompleteSignature")
    reply = await post(url, signed(url, key.id, key.token, token="session"))
    assert "session token" in refusal(reply, "InvalidClientTokenId")


async def test_only_access_keys_in_force_sign(guarded: Replica, key: KeyIssued, who: list[Call]) -> None:
    url, core = guarded.sluice.wires["sqs"] + "/", guarded.sluice.core
    bearer = await keys.create(core.db, key.tenant, Grant("use"))
    for key_id in (bearer.id, "SLKA" + "A" * 16, "AKIAIOSFODNN7EXAMPLE", "x" * 500):
        refusal(await post(url, signed(url, key_id, bearer.token)), "InvalidClientTokenId")
    assert (await post(url, signed(url, key.id, key.token))).status_code == 200
    await keys.revoke(core.db, key.id)
    refusal(await post(url, signed(url, key.id, key.token)), "InvalidClientTokenId")


async def test_both_secrets_sign_during_a_rotation(guarded: Replica, key: KeyIssued, who: list[Call]) -> None:
    url, core = guarded.sluice.wires["sqs"] + "/", guarded.sluice.core
    rotated = await keys.rotate(core.db, key.id, 3_600, core.vault)
    assert (rotated.id, rotated.access_key_id, rotated.kind) == (key.id, key.id, "aws")
    assert rotated.secret_access_key == rotated.token != key.token
    for secret in (key.token, rotated.token):
        assert (await post(url, signed(url, key.id, secret))).status_code == 200
    last = await keys.rotate(core.db, key.id, 0, core.vault)
    core.keys.signers.clear()  # they are trusted for a second
    for secret in (key.token, rotated.token):
        refusal(await post(url, signed(url, key.id, secret)), "SignatureDoesNotMatch")
    assert (await post(url, signed(url, key.id, last.token))).status_code == 200


async def test_the_secret_is_sealed_in_the_database(guarded: Replica, key: KeyIssued) -> None:
    (row,) = await guarded.sluice.core.db.fetch(
        "select k::text, kind from sluice.api_keys k where id = '" + key.id + "'"
    )
    assert row["kind"] == "aws" and key.token not in row[0] and key.token.encode().hex() not in row[0]


async def test_an_access_key_is_no_token_of_the_api(guarded: Replica, key: KeyIssued) -> None:
    for token in (key.token, f"slk_{key.token}", key.id, f"slk_{key.id}_{key.token}"):
        async with guarded.caller(token) as client:
            assert (await client.get("/queues")).status_code == 401


async def test_a_key_that_only_reads_cannot_use_what_changes(guarded: Replica, who: list[Call]) -> None:
    url, core = guarded.sluice.wires["sqs"] + "/", guarded.sluice.core
    reader = await keys.create(core.db, "readers", Grant("read", kind="aws"), core.vault)
    assert "scope" in refusal(await post(url, signed(url, reader.id, reader.token)), "AccessDenied")


async def test_what_is_refused_to_an_access_key_is_in_the_audit(guarded: Replica) -> None:
    url, core = guarded.sluice.wires["sqs"] + "/", guarded.sluice.core
    user = await keys.create(core.db, "audited", Grant("use", kind="aws"), core.vault)
    manager = await keys.create(core.db, "audited", Grant("manage"))
    bare = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.CreateQueue"}
    for body, error in (
        (b'{"QueueName":"q"}', "AccessDenied"),
        (b"{}", "MissingParameter"),
        (b'{"QueueName":"\\u0000"}', "AccessDenied"),
    ):
        refusal(await post(url, signed(url, user.id, user.token, body=body, headers=bare), body), error)
    async with guarded.caller(manager.token) as client:
        rows = (await client.get("/audit")).json()["items"]
    found = [(row["verb"], row["noun"], row["name"], row["code"], row["actor"]["key"]) for row in rows if row["code"]]
    assert sorted(found, key=str) == sorted(
        [
            ("put", "queue", "q", "forbidden", user.id),
            ("put", "queue", None, "invalid", user.id),
            ("put", "queue", None, "forbidden", user.id),
        ],
        key=str,
    )


async def test_an_access_key_is_made_and_shown_once_over_the_api(guarded: Replica, who: list[Call]) -> None:
    url, core = guarded.sluice.wires["sqs"] + "/", guarded.sluice.core
    manager = await keys.create(core.db, "makers", Grant("manage"))
    soon = format_instant(datetime.now(UTC) + timedelta(hours=1))
    async with guarded.caller(manager.token) as client:
        asked = {"kind": "aws", "scope": "use", "queues": ["mail-*"], "expires_at": soon}
        made = (await client.post("/keys", json=asked)).json()
        assert (made["id"], made["kind"]) == (made["access_key_id"], "aws")
        assert made["token"] == made["secret_access_key"] and len(made["id"]) == 20
        shown = await client.get(f"/keys/{made['id']}")
        assert made["token"] not in shown.text and shown.json()["kind"] == "aws"
        assert (await post(url, signed(url, made["id"], made["token"]))).status_code == 200
        assert who[-1].caller.queues == ("mail-*",)
        rotated = (await client.post(f"/keys/{made['id']}/rotate", json={"overlap_seconds": 60})).json()
        assert rotated["secret_access_key"] != made["token"]
        assert (await client.delete(f"/keys/{made['id']}")).status_code == 204
    refusal(await post(url, signed(url, made["id"], rotated["token"])), "InvalidClientTokenId")


async def test_tools_learn_who_they_are_from_sts(guarded: Replica, key: KeyIssued) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    form = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = await post(url, signed(url, key.id, key.token, body=form, service="sts", headers=headers), form)
    assert reply.status_code == 200 and reply.headers["content-type"] == "text/xml"
    assert f"<UserId>{key.id}</UserId>" in reply.text
    wrong = await post(url, signed(url, key.id, "wrong", body=form, service="sts", headers=headers), form)
    assert wrong.status_code == 403 and "<Code>SignatureDoesNotMatch</Code>" in wrong.text


async def test_a_client_too_old_for_json_is_told_so_in_xml(guarded: Replica, key: KeyIssued) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    form, headers = b"Action=ListQueues&Version=2012-11-05", {"content-type": "application/x-www-form-urlencoded"}
    reply = await post(url, signed(url, key.id, key.token, body=form, headers=headers), form)
    assert reply.status_code == 400 and "JSON 1.0" in reply.text and "<Code>InvalidAction</Code>" in reply.text


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    guarded: Replica, key: KeyIssued, who: list[Call]
) -> None:
    url = guarded.sluice.wires["sqs"] + "/"
    body = b" " * (wire.MAX_BODY_BYTES + 1)
    reply = await post(url, signed(url, key.id, key.token, body=body), body)
    refusal(reply, "RequestEntityTooLarge")
    assert json.loads(reply.content)["message"]


async def test_no_garbage_in_a_signature_is_more_than_refused(
    guarded: Replica, key: KeyIssued, who: list[Call]
) -> None:
    url, dice = guarded.sluice.wires["sqs"] + "/", random.Random(4)
    good = signed(url, key.id, key.token)
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        for _ in range(200):
            value = bytearray(good["authorization"].encode())
            for _ in range(dice.randint(1, 6)):
                value[dice.randrange(len(value))] = dice.choice(b" =,;/\t\xff\x80aA0~")
            headers = [(name.encode(), text.encode()) for name, text in good.items() if name != "authorization"]
            reply = await client.post(url, content=BODY, headers=[*headers, (b"authorization", bytes(value).strip())])
            # a space may have become a tab, or a letter itself
            assert reply.status_code in (200, 400, 403), f"{value!r}: {reply.status_code} {reply.text}"
    assert len(who) < 20


async def test_neither_secret_nor_signature_reaches_the_log(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
) -> None:
    token = make_api_key().text
    process = await start_sluice(SLUICE_SQS_PORT="0", SLUICE_BOOTSTRAP_KEY=token, SLUICE_LOG_LEVEL="debug")
    (ready,) = [line for line in map(json.loads, process.lines) if line["event"] == "ready"]
    asked = {"authorization": f"Bearer {token}"}
    made = (await process.client.post("/keys", json={"kind": "aws"}, headers=asked)).json()
    url = ready["wires"]["sqs"] + "/"
    sent = [signed(url, made["id"], secret) for secret in (made["secret_access_key"], "wrong")]
    assert [(await post(url, headers)).status_code for headers in sent] == [200, 403]
    metrics = (await process.client.get("/metrics", headers=asked)).text
    audit = (await process.client.get("/audit", headers=asked)).text
    await process.terminate()
    for told in (process.output, metrics, audit):
        assert made["secret_access_key"] not in told
        assert not any(headers["authorization"].rpartition("=")[2] in told for headers in sent)
