"""What the SQS wire answers before an operation is reached."""

import json

import pytest

from tests.compat.sqs import Sqs, refusal

pytestmark = pytest.mark.anyio


async def test_an_unknown_operation_is_named_in_the_refusal(sqs: Sqs) -> None:
    assert "Transmogrify" in await sqs.refused("Transmogrify", "InvalidAction")


async def test_a_request_that_is_no_call_is_told_what_one_looks_like(sqs: Sqs) -> None:
    assert "X-Amz-Target" in refusal(await sqs.client.get(sqs.url), "InvalidAction")
    assert "X-Amz-Target" in refusal(await sqs.client.post(sqs.url, content=b"{}"), "InvalidAction")


async def test_a_web_page_cannot_call_while_authentication_is_off(sqs: Sqs) -> None:
    reply = await sqs.send("ListQueues", json.dumps({}).encode(), origin="https://example.com")
    assert "Origin" in refusal(reply, "AccessDenied")


async def test_a_body_that_ceases_to_be_json_after_its_first_fault_is_malformed(sqs: Sqs) -> None:
    for body in (
        b'{"QueueName": 1, "Attributes": {"a": "\\ud800"}}',
        b'{"QueueName": 1, "Attributes": ',
        b'{"QueueName": 1}}',
    ):
        assert "JSON" in refusal(await sqs.send("CreateQueue", body), "MalformedInput")
