"""What SQS clients change is in the audit, as what others change is."""

from typing import Any

import pytest

from app.compat.sqs.queues import OPERATIONS
from tests.compat.sqs import Sqs
from tests.compat.test_sqs_queues import arn, create, fresh, name_of, redrive
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio


def test_every_operation_that_needs_more_than_reading_is_audited() -> None:
    unaudited = {name for name, operation in OPERATIONS.items() if operation.audited is None}
    assert unaudited == {name for name in OPERATIONS if name.startswith(("Get", "List"))}


async def latest(api: Api) -> dict[str, Any]:
    (row,) = good(await api.get("/audit", params={"limit": 1}))["items"]
    found: dict[str, Any] = row
    return found


async def test_every_change_leaves_a_row_with_where_it_came_from(sqs: Sqs, api: Api) -> None:
    name, dead = fresh(), fresh()
    await create(sqs, dead)
    url = await create(sqs, name, RedrivePolicy=redrive(dead))
    dead_url = url.replace(name, dead)
    seen = await latest(api)
    permission = {"Label": "a", "AWSAccountIds": ["111111111111"], "Actions": ["*"]}
    calls: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
        ("SetQueueAttributes", {"QueueUrl": url, "Attributes": {"DelaySeconds": "3"}}, ("put", "queue")),
        ("SetQueueAttributes", {"QueueUrl": url, "Attributes": {"RedrivePolicy": redrive(dead, 7)}}, ("put", "queue")),
        ("TagQueue", {"QueueUrl": url, "Tags": {"a": "b"}}, ("put", "queue")),
        ("UntagQueue", {"QueueUrl": url, "TagKeys": ["a"]}, ("put", "queue")),
        ("AddPermission", {"QueueUrl": url, **permission}, ("put", "queue")),
        ("RemovePermission", {"QueueUrl": url, "Label": "a"}, ("put", "queue")),
        ("StartMessageMoveTask", {"SourceArn": arn(dead)}, ("start", "action")),
        ("PurgeQueue", {"QueueUrl": url}, ("purge", "queue")),
        ("DeleteQueue", {"QueueUrl": url}, ("delete", "queue")),
        ("DeleteQueue", {"QueueUrl": dead_url}, ("delete", "queue")),
    ]
    for operation, given, (verb, noun) in calls:
        await sqs.call(operation, **given)
        row = await latest(api)
        assert row["id"] != seen["id"], operation
        assert (row["verb"], row["noun"], row["code"]) == (verb, noun, None), operation
        assert row["address"] == "127.0.0.1"
        seen = row
    await create(sqs, name_of(url))
    assert (await latest(api))["verb"] == "put"


async def test_what_is_refused_leaves_one_row(sqs: Sqs, api: Api) -> None:
    before = await latest(api)
    await sqs.refused("StartMessageMoveTask", "ResourceNotFoundException", SourceArn=arn(fresh()))
    row, last = good(await api.get("/audit", params={"limit": 2}))["items"]
    assert (row["verb"], row["noun"], row["code"]) == ("start", "action", "queue_not_found")
    assert last["id"] == before["id"]


async def test_what_is_not_changed_leaves_no_row(sqs: Sqs, api: Api) -> None:
    url = await create(sqs, DelaySeconds="3")
    before = await latest(api)
    await create(sqs, name_of(url), DelaySeconds="3")
    await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={"DelaySeconds": "3"})
    await sqs.call("UntagQueue", QueueUrl=url, TagKeys=["unknown"])
    assert (await latest(api)) == before
