"""A plugin of pytest for moto's tests: each begins without queues, as `POST /moto-api/reset` would leave moto's server.

Loaded into the process that runs the suite, by its folder, and so beside nothing of ours.
"""

import os

import boto3
import pytest

ENDPOINT = os.environ["TEST_SERVER_MODE_ENDPOINT"]


@pytest.fixture(autouse=True)
def without_queues() -> None:
    client = boto3.session.Session().client("sqs", region_name="us-east-1", endpoint_url=ENDPOINT)
    for page in client.get_paginator("list_queues").paginate():
        for url in page.get("QueueUrls", ()):
            client.delete_queue(QueueUrl=url)
