"""What the guide for newcomers from elsewhere calls missing is missing, and the routes it names are there."""

import json
import re

from tests.docs.pages import ROOT

GUIDE = (ROOT / "docs" / "guides" / "coming-from.md").read_text()
OPENAPI = (ROOT / "openapi" / "openapi.json").read_text()

MISSING = {
    "OIDC and OAuth tokens": "oidc|oauth",
    "URL groups": '"urls": {"type": "array"',
    "`solar` schedules": "sunrise|sunset|solar",
}
"""What is said to be missing, and what the API would have if it were not."""


def test_what_is_called_missing_is_missing() -> None:
    called = {line.split(" | ")[0].removeprefix("| ") for line in GUIDE.splitlines() if "**missing**" in line}
    assert called == MISSING.keys()
    queues = {path: item for path, item in json.loads(OPENAPI)["paths"].items() if "batches" not in path}
    described = json.dumps(queues) + json.dumps(
        {name: schema for name, schema in json.loads(OPENAPI)["components"]["schemas"].items() if "Batch" not in name}
    )
    for what, mark in MISSING.items():
        assert not re.search(mark, described, re.IGNORECASE), f"{what} is there"


def test_every_route_that_is_named_exists() -> None:
    paths = {re.sub(r"{\w+}", "{}", path) for path in json.loads(OPENAPI)["paths"]}
    named = {re.sub(r"{\w+}", "{}", path) for path in re.findall(r"(?:GET|PUT|POST|DELETE) (/[\w/{}]+)", GUIDE)}
    assert named and named <= paths


def test_every_field_and_state_that_is_named_exists() -> None:
    sluice = [line.partition(" | ")[2] for line in GUIDE.splitlines() if line.startswith("| ")]
    words = {part for cell in sluice for word in re.findall(r"`([a-z_.]+)`", cell) for part in word.split(".")}
    assert len(words) > 30
    assert not [word for word in words if not re.search(rf"\b{word}\b", OPENAPI)]
