"""Queues on the SQS wire."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.compat.sqs import Sqs
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

ACCOUNT = "123456789012"


def fresh(suffix: str = "") -> str:
    return f"q-{uuid4().hex[:12]}{suffix}"


def arn(name: str) -> str:
    return f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"


async def create(sqs: Sqs, name: str | None = None, **attributes: str) -> str:
    """Return the URL of a new queue."""
    found = await sqs.call("CreateQueue", QueueName=name or fresh(), Attributes=attributes)
    url: str = found["QueueUrl"]
    return url


async def attributes(sqs: Sqs, url: str, *names: str) -> dict[str, str]:
    found = await sqs.call("GetQueueAttributes", QueueUrl=url, AttributeNames=list(names or ("All",)))
    shown: dict[str, str] = found.get("Attributes", {})
    return shown


def redrive(name: str, count: Any = 3) -> str:
    return json.dumps({"deadLetterTargetArn": arn(name), "maxReceiveCount": count})


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


# CreateQueue


async def test_a_queue_made_here_is_a_pull_queue_like_others(sqs: Sqs, api: Api) -> None:
    url = await create(sqs)
    assert url.endswith(f"/{ACCOUNT}/{name_of(url)}")
    queue = good(await api.get(f"/queues/{name_of(url)}"))
    assert (queue["handler"], queue["callbacks"]["dead"], queue["key"]) == (None, None, None)
    assert (await sqs.call("GetQueueUrl", QueueName=name_of(url)))["QueueUrl"] == url


async def test_a_new_queue_has_the_defaults_of_sqs(sqs: Sqs) -> None:
    url = await create(sqs)
    shown = await attributes(sqs, url)
    assert shown.pop("CreatedTimestamp").isdigit() and shown.pop("LastModifiedTimestamp").isdigit()
    assert shown == {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "DelaySeconds": "0",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "QueueArn": arn(name_of(url)),
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "true",
        "VisibilityTimeout": "30",
    }


async def test_a_queue_is_created_once_and_differing_attributes_are_refused(sqs: Sqs) -> None:
    name = fresh()
    url = await create(sqs, name, VisibilityTimeout="45", DelaySeconds="5")
    assert await create(sqs, name) == await create(sqs, name, VisibilityTimeout="45") == url
    message = await sqs.refused(
        "CreateQueue", "QueueNameExists", QueueName=name, Attributes={"VisibilityTimeout": "46", "DelaySeconds": "5"}
    )
    assert "VisibilityTimeout" in message
    assert (await attributes(sqs, url, "VisibilityTimeout")) == {"VisibilityTimeout": "45"}


async def test_creations_at_the_same_time_make_one_queue(sqs: Sqs) -> None:
    name = fresh()
    urls = await asyncio.gather(*(create(sqs, name, DelaySeconds="7") for _ in range(8)))
    assert len(set(urls)) == 1


async def test_a_queue_made_by_the_api_is_found_with_what_its_definition_says(sqs: Sqs, api: Api) -> None:
    name, dead = fresh(), fresh()
    good(await api.put(f"/queues/{dead}", json={}), 201)
    callbacks = {"dead": {"queue": dead, "body": "payload"}}
    good(await api.put(f"/queues/{name}", json={"retry": {"max_attempts": 7}, "callbacks": callbacks}), 201)
    url = await create(sqs, name, RedrivePolicy=redrive(dead, 7))
    shown = await attributes(sqs, url)
    assert json.loads(shown["RedrivePolicy"]) == {"deadLetterTargetArn": arn(dead), "maxReceiveCount": 7}
    assert shown["MessageRetentionPeriod"] == "1209600"  # its tasks do not expire by themselves


@pytest.mark.parametrize("name", ["", "a" * 81, "a.b", "a b", "ä", "a/b", "_a", "a.fifo", "a\x00"])
async def test_a_name_that_is_not_allowed_is_refused(sqs: Sqs, name: str) -> None:
    await sqs.refused("CreateQueue", "InvalidParameterValue", QueueName=name)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("VisibilityTimeout", "43201", "InvalidAttributeValue"),
        ("VisibilityTimeout", "-1", "InvalidAttributeValue"),
        ("VisibilityTimeout", "1.5", "InvalidAttributeValue"),
        ("DelaySeconds", "901", "InvalidAttributeValue"),
        ("DelaySeconds", "", "InvalidAttributeValue"),
        ("DelaySeconds", "٣", "InvalidAttributeValue"),
        ("MaximumMessageSize", "1023", "InvalidAttributeValue"),
        ("MessageRetentionPeriod", "1209601", "InvalidAttributeValue"),
        ("ReceiveMessageWaitTimeSeconds", "21", "InvalidAttributeValue"),
        ("SqsManagedSseEnabled", "perhaps", "InvalidAttributeValue"),
        ("Policy", "no JSON", "InvalidAttributeValue"),
        ("Policy", "[]", "InvalidAttributeValue"),
        ("Policy", "[" * 5000, "InvalidAttributeValue"),
        ("Policy", '{"Statement": ' + "[" * 900 + "]" * 900 + "}", "InvalidAttributeValue"),
        ("KmsMasterKeyId", "a\x00", "InvalidAttributeValue"),
        ("ContentBasedDeduplication", "true", "InvalidAttributeName"),
        ("QueueArn", "arn", "InvalidAttributeName"),
        ("Colour", "red", "InvalidAttributeName"),
        ("RedrivePolicy", "[]", "InvalidParameterValue"),
        ("RedrivePolicy", '{"maxReceiveCount": 3}', "InvalidParameterValue"),
        ("RedrivePolicy", redrive("nowhere"), "InvalidParameterValue"),
        ("RedrivePolicy", redrive("a\x00"), "InvalidParameterValue"),
        ("RedrivePolicy", redrive("nowhere", 0), "InvalidParameterValue"),
        ("RedrivePolicy", redrive("nowhere", 1001), "InvalidParameterValue"),
        ("RedrivePolicy", redrive("nowhere", None), "InvalidParameterValue"),
        ("RedrivePolicy", redrive("nowhere", True), "InvalidParameterValue"),
    ],
)
async def test_an_attribute_that_is_not_valid_is_refused_and_nothing_is_made(
    sqs: Sqs, name: str, value: str, error: str
) -> None:
    queue = fresh()
    await sqs.refused("CreateQueue", error, QueueName=queue, Attributes={"DelaySeconds": "5"} | {name: value})
    await sqs.refused("GetQueueUrl", "QueueDoesNotExist", QueueName=queue)
    url = await create(sqs, queue)
    await sqs.refused("SetQueueAttributes", error, QueueUrl=url, Attributes={"DelaySeconds": "5"} | {name: value})
    assert await attributes(sqs, url, "DelaySeconds") == {"DelaySeconds": "0"}


# FIFO


async def test_a_fifo_queue_orders_by_key_and_shows_its_attributes(sqs: Sqs, api: Api) -> None:
    name = fresh(".fifo")
    url = await create(sqs, name, FifoQueue="true", ContentBasedDeduplication="true")
    shown = await attributes(sqs, url)
    assert (shown["FifoQueue"], shown["ContentBasedDeduplication"]) == ("true", "true")
    assert (shown["DeduplicationScope"], shown["FifoThroughputLimit"]) == ("queue", "perQueue")
    queue = good(await api.get(f"/queues/{name}"))
    assert (queue["key"]["ordered"], queue["key"]["required"], queue["idempotency_seconds"]) == (True, True, 300)


async def test_the_kind_of_a_queue_goes_with_its_name_and_stays(sqs: Sqs) -> None:
    await sqs.refused("CreateQueue", "InvalidParameterValue", QueueName=fresh(), Attributes={"FifoQueue": "true"})
    await sqs.refused("CreateQueue", "InvalidParameterValue", QueueName=fresh(".fifo"))
    url = await create(sqs)
    await sqs.refused("SetQueueAttributes", "InvalidAttributeValue", QueueUrl=url, Attributes={"FifoQueue": "true"})


async def test_high_throughput_needs_deduplication_by_group(sqs: Sqs) -> None:
    url = await create(sqs, fresh(".fifo"), FifoQueue="true")
    high = {"FifoThroughputLimit": "perMessageGroupId"}
    await sqs.refused("SetQueueAttributes", "InvalidAttributeValue", QueueUrl=url, Attributes=high)
    await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes=high | {"DeduplicationScope": "messageGroup"})
    assert (await attributes(sqs, url, "FifoThroughputLimit")) == high


# attributes


async def test_attributes_change_and_are_shown_by_name(sqs: Sqs) -> None:
    url = await create(sqs)
    await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={"VisibilityTimeout": "45", "DelaySeconds": "9"})
    assert await attributes(sqs, url, "VisibilityTimeout", "DelaySeconds") == {
        "VisibilityTimeout": "45",
        "DelaySeconds": "9",
    }
    assert "Attributes" not in await sqs.call("GetQueueAttributes", QueueUrl=url)
    assert await attributes(sqs, url, "KmsMasterKeyId") == {}
    message = await sqs.refused(
        "GetQueueAttributes", "InvalidAttributeName", QueueUrl=url, AttributeNames=["QueueArn", "colour"]
    )
    assert message == "Unknown Attribute colour."


async def test_changes_of_different_attributes_at_the_same_time_all_last(sqs: Sqs) -> None:
    dead = fresh()
    await create(sqs, dead)
    url = await create(sqs)
    wanted = {"VisibilityTimeout": "45", "DelaySeconds": "9", "RedrivePolicy": redrive(dead, 3)}
    changes = [sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={name: value}) for name, value in wanted.items()]
    tags = [sqs.call("TagQueue", QueueUrl=url, Tags={f"tag{n}": str(n)}) for n in range(4)]
    await asyncio.gather(*changes, *tags)
    assert await attributes(sqs, url, *wanted) == wanted
    assert len((await sqs.call("ListQueueTags", QueueUrl=url))["Tags"]) == 4


async def test_a_key_for_encryption_is_kept_and_shown(sqs: Sqs) -> None:
    url = await create(sqs, KmsMasterKeyId="alias/aws/sqs", KmsDataKeyReusePeriodSeconds="600")
    shown = await attributes(sqs, url)
    assert (shown["KmsMasterKeyId"], shown["KmsDataKeyReusePeriodSeconds"]) == ("alias/aws/sqs", "600")
    assert shown["SqsManagedSseEnabled"] == "false"


async def test_a_redrive_policy_is_the_dead_letter_callback_of_the_queue(sqs: Sqs, api: Api) -> None:
    dead = fresh()
    dead_url = await create(sqs, dead)
    url = await create(sqs, RedrivePolicy=redrive(dead, "4"))
    queue = good(await api.get(f"/queues/{name_of(url)}"))
    assert (queue["callbacks"]["dead"]["queue"], queue["callbacks"]["dead"]["body"]) == (dead, "payload")
    assert queue["retry"]["max_attempts"] == 4
    assert await sqs.call("ListDeadLetterSourceQueues", QueueUrl=dead_url) == {"queueUrls": [url]}

    await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert "RedrivePolicy" not in await attributes(sqs, url)
    assert good(await api.get(f"/queues/{name_of(url)}"))["callbacks"]["dead"] is None
    assert await sqs.call("ListDeadLetterSourceQueues", QueueUrl=dead_url) == {"queueUrls": []}


async def test_a_dead_letter_queue_is_another_queue_of_the_same_kind(sqs: Sqs) -> None:
    name, fifo = fresh(), fresh(".fifo")
    await create(sqs, fifo, FifoQueue="true")
    await sqs.refused(
        "CreateQueue", "InvalidParameterValue", QueueName=name, Attributes={"RedrivePolicy": redrive(fifo)}
    )
    url = await create(sqs, name)
    given = {"RedrivePolicy": redrive(name)}
    await sqs.refused("SetQueueAttributes", "InvalidParameterValue", QueueUrl=url, Attributes=given)


async def test_a_definition_put_by_the_api_keeps_what_only_sqs_knows(sqs: Sqs, api: Api) -> None:
    url = await create(sqs, VisibilityTimeout="77")
    await sqs.call("TagQueue", QueueUrl=url, Tags={"team": "a"})
    good(await api.put(f"/queues/{name_of(url)}", json={"description": "changed"}))
    assert await attributes(sqs, url, "VisibilityTimeout") == {"VisibilityTimeout": "77"}
    assert await sqs.call("ListQueueTags", QueueUrl=url) == {"Tags": {"team": "a"}}


async def test_messages_are_counted_by_what_holds_for_them_now(sqs: Sqs, api: Api) -> None:
    url = await create(sqs)
    tasks = [{"payload": n} for n in range(5)] + [{"payload": 5, "delay_seconds": 900}]
    await api.bulk(name_of(url), tasks)
    good(await api.post(f"/queues/{name_of(url)}/leases", json={"max_tasks": 2}))
    shown = await attributes(sqs, url)
    assert shown["ApproximateNumberOfMessages"] == "3"
    assert shown["ApproximateNumberOfMessagesDelayed"] == "1"
    assert shown["ApproximateNumberOfMessagesNotVisible"] == "2"


# lists


async def test_queues_are_listed_by_prefix_and_in_pages(sqs: Sqs) -> None:
    prefix = fresh()
    urls = [await create(sqs, f"{prefix}-{n}") for n in range(5)]
    assert (await sqs.call("ListQueues", QueueNamePrefix=prefix))["QueueUrls"] == urls
    first = await sqs.call("ListQueues", QueueNamePrefix=prefix, MaxResults=3)
    assert first["QueueUrls"] == urls[:3]
    rest = await sqs.call("ListQueues", QueueNamePrefix=prefix, MaxResults=3, NextToken=first["NextToken"])
    assert rest == {"QueueUrls": urls[3:]}
    assert await sqs.call("ListQueues", QueueNamePrefix=fresh()) == {}
    assert await sqs.call("ListQueues", QueueNamePrefix="a\x00") == {}
    for token in ("garbage", first["NextToken"]):
        await sqs.refused("ListQueues", "InvalidParameterValue", NextToken=token, MaxResults=3)


async def test_a_queue_of_another_account_does_not_exist(sqs: Sqs) -> None:
    url = await create(sqs)
    await sqs.refused("GetQueueUrl", "QueueDoesNotExist", QueueName=name_of(url), QueueOwnerAWSAccountId="111111111111")
    assert await attributes(sqs, name_of(url), "DelaySeconds")
    for elsewhere in ("http://whatever", "", "/", f"/{name_of(url)}", f"http://sqs/{name_of(url)}"):
        await sqs.refused("GetQueueAttributes", "QueueDoesNotExist", QueueUrl=elsewhere)
    await sqs.call("GetQueueAttributes", QueueUrl=name_of(url))  # as some clients send it
    other = url.replace(ACCOUNT, "111111111111")
    for operation in ("GetQueueAttributes", "DeleteQueue", "PurgeQueue", "ListQueueTags", "ListDeadLetterSourceQueues"):
        await sqs.refused(operation, "QueueDoesNotExist", QueueUrl=other)
        await sqs.refused(operation, "QueueDoesNotExist", QueueUrl=url + "-unknown")
        await sqs.refused(operation, "QueueDoesNotExist", QueueUrl=url + "\x00")


# tags and permissions


async def test_tags_are_added_replaced_and_removed(sqs: Sqs) -> None:
    found = await sqs.call("CreateQueue", QueueName=fresh(), tags={"one": "1", "empty": ""})
    url = found["QueueUrl"]
    await sqs.call("TagQueue", QueueUrl=url, Tags={"one": "2", "two": "zwei Ü"})
    assert (await sqs.call("ListQueueTags", QueueUrl=url))["Tags"] == {"one": "2", "empty": "", "two": "zwei Ü"}
    await sqs.call("UntagQueue", QueueUrl=url, TagKeys=["one", "empty", "unknown"])
    assert (await sqs.call("ListQueueTags", QueueUrl=url))["Tags"] == {"two": "zwei Ü"}
    await sqs.refused("TagQueue", "InvalidParameterValue", QueueUrl=url, Tags={f"tag{n}": "" for n in range(50)})
    await sqs.refused("TagQueue", "InvalidParameterValue", QueueUrl=url, Tags={"a\x00": ""})
    await sqs.refused("TagQueue", "MissingParameter", QueueUrl=url, Tags={})
    await sqs.refused("UntagQueue", "InvalidParameterValue", QueueUrl=url, TagKeys=[])


async def test_permissions_are_statements_of_the_policy(sqs: Sqs) -> None:
    url = await create(sqs)
    given = {"QueueUrl": url, "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage", "ReceiveMessage"]}
    await sqs.call("AddPermission", Label="both", **given)
    await sqs.call("AddPermission", Label="all", **given | {"Actions": ["*"]})
    policy = json.loads((await attributes(sqs, url, "Policy"))["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == ["both", "all"]
    assert policy["Statement"][0]["Action"] == ["SQS:SendMessage", "SQS:ReceiveMessage"]
    assert policy["Statement"][1]["Principal"] == {"AWS": "arn:aws:iam::111111111111:root"}
    await sqs.refused("AddPermission", "InvalidParameterValue", Label="all", **given)
    await sqs.refused("RemovePermission", "InvalidParameterValue", QueueUrl=url, Label="unknown")
    for label in ("all", "both"):
        await sqs.call("RemovePermission", QueueUrl=url, Label=label)
    assert await attributes(sqs, url, "Policy") == {}


async def test_a_permission_that_is_not_valid_is_refused(sqs: Sqs) -> None:
    url = await create(sqs)
    good: dict[str, Any] = {"QueueUrl": url, "Label": "a", "AWSAccountIds": ["111111111111"], "Actions": ["*"]}
    for error, bad in (
        ("MissingParameter", {"Actions": []}),
        ("InvalidParameterValue", {"AWSAccountIds": []}),
        ("InvalidParameterValue", {"AWSAccountIds": ["me"]}),
        ("InvalidParameterValue", {"Actions": ["CreateQueue"]}),
        ("InvalidParameterValue", {"Label": "a b"}),
        ("OverLimit", {"Actions": ["SendMessage"] * 8}),
    ):
        await sqs.refused("AddPermission", error, **good | bad)
    assert await attributes(sqs, url, "Policy") == {}


# PurgeQueue, DeleteQueue


async def unfinished(api: Api, name: str) -> list[str]:
    """Fill a queue with a task that runs, one that is ready and one that is delayed; return their ids."""
    tasks = [{"payload": 1}, {"payload": 2}, {"payload": 3, "delay_seconds": 900}]
    ids = await api.bulk(name, tasks)
    good(await api.post(f"/queues/{name}/leases", json={"max_tasks": 1}))
    return ids


async def test_a_queue_is_purged_once_a_minute(sqs: Sqs) -> None:
    url = await create(sqs)
    await sqs.call("PurgeQueue", QueueUrl=url)
    await sqs.refused("PurgeQueue", "PurgeQueueInProgress", QueueUrl=url)


async def test_of_many_purges_at_the_same_time_one_is_done(sqs: Sqs) -> None:
    body = json.dumps({"QueueUrl": await create(sqs)}).encode()
    replies = await asyncio.gather(*(sqs.send("PurgeQueue", body) for _ in range(6)))
    assert sorted(reply.status_code for reply in replies) == [200] + [400] * 5


async def test_a_purge_takes_messages_in_flight_and_delayed_ones_too(sqs: Sqs, api: Api) -> None:
    url = await create(sqs)
    ids = await unfinished(api, name_of(url))
    await sqs.call("PurgeQueue", QueueUrl=url)
    ended = [good(await api.get(f"/tasks/{task_id}")) for task_id in ids]
    assert [(task["state"], task["reason"]) for task in ended] == [("cancelled", "purged")] * 3
    assert (await attributes(sqs, url))["ApproximateNumberOfMessagesNotVisible"] == "0"


async def test_a_queue_is_deleted_with_its_messages_and_its_name_is_free(sqs: Sqs, api: Api) -> None:
    name = fresh()
    url = await create(sqs, name, VisibilityTimeout="45")
    ids = await unfinished(api, name)
    await sqs.call("DeleteQueue", QueueUrl=url)
    await sqs.refused("GetQueueUrl", "QueueDoesNotExist", QueueName=name)
    await sqs.refused("DeleteQueue", "QueueDoesNotExist", QueueUrl=url)
    ended = [good(await api.get(f"/tasks/{task_id}")) for task_id in ids]
    assert [(task["state"], task["reason"]) for task in ended] == [("cancelled", "purged")] * 3
    await create(sqs, name, VisibilityTimeout="46")
    assert (await attributes(sqs, url))["ApproximateNumberOfMessages"] == "0"


async def test_a_queue_that_a_schedule_feeds_is_not_deleted(sqs: Sqs, api: Api) -> None:
    url = await create(sqs)
    schedule = {"queue": name_of(url), "every_seconds": 86_400, "payload": 1}
    good(await api.put(f"/schedules/{fresh()}", json=schedule), 201)
    assert "schedule" in await sqs.refused("DeleteQueue", "UnsupportedOperation", QueueUrl=url)
    await attributes(sqs, url)


async def test_a_queue_changes_after_its_dead_letter_queue_was_deleted(sqs: Sqs) -> None:
    dead = fresh()
    dead_url = await create(sqs, dead)
    url = await create(sqs, RedrivePolicy=redrive(dead))
    await sqs.call("DeleteQueue", QueueUrl=dead_url)
    await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={"VisibilityTimeout": "45"})
    assert await attributes(sqs, url, "VisibilityTimeout") == {"VisibilityTimeout": "45"}
