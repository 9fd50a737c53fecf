"""The OpenAPI document that the edge serves, and the page that shows it."""

import json
from typing import Any

import httpx2
import pytest

from app.edge.asgi import Edge
from tests.edge.edge import (
    edge,
)

pytestmark = pytest.mark.anyio


def document(app: Edge) -> dict[str, Any]:
    return json.loads(json.dumps(app.application.openapi()))


def test_the_document_has_every_route() -> None:
    paths = document(edge())["paths"]
    operations = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert len(operations) == sum(len(methods) for methods in paths.values())
    assert operations >= {"enqueue_task", "put_queue", "list_attempts", "rotate_handler_secret", "get_metrics"}


BY_LEASE_TOKEN = ("/renew", "/complete", "/fail", "/release")


@pytest.mark.ci
def test_the_document_asks_for_keys_where_they_are_needed() -> None:
    for app, secured in ((edge(), True), (edge(auth=False), False)):
        for path, methods in document(app)["paths"].items():
            for operation in methods.values():
                by_key = not path.startswith("/health") and not path.endswith(BY_LEASE_TOKEN)
                assert ("security" in operation) == (secured and by_key), path


def test_every_reference_in_the_document_leads_somewhere() -> None:
    found = document(edge())
    text = json.dumps(found)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in found["components"]["schemas"]
    assert "HTTPValidationError" not in text
    assert r"\\Z" not in text, "the end of a pattern as Python has it"


async def test_the_docs_load_nothing_from_elsewhere(api: httpx2.AsyncClient) -> None:
    reply = await api.get("/docs")
    assert reply.status_code == 200
    assert "http://" not in reply.text and "https://" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
