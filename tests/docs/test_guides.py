"""The code that readers copy out of the guides."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from app.delivery.signing import new_secret, sign
from tests.docs.pages import ROOT, blocks

SECRET = new_secret()
BODY = b'{"to": "ada"}'


def signed(secret: str = SECRET, *, age_seconds: int = 0) -> dict[str, str]:
    timestamp = int(time.time()) - age_seconds
    return {
        "webhook-id": "task-1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign((secret,), "task-1", timestamp, BODY),
    }


@pytest.fixture
def named() -> dict[str, Any]:
    """What the Python blocks of the handler guide define."""
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "guides" / "handlers.md", "python"):
        exec(block, names)
    return names


def test_the_guide_verifies_with_the_package(named: dict[str, Any]) -> None:
    verified: Callable[..., object] = named["verified"]
    assert verified(SECRET, signed(), BODY) == {"to": "ada"}
    with pytest.raises(WebhookVerificationError):
        verified(SECRET, signed(new_secret()), BODY)


def test_the_guide_verifies_without_a_package(named: dict[str, Any]) -> None:
    is_signed: Callable[..., bool] = named["is_signed"]
    assert is_signed(SECRET, signed(), BODY)
    assert not is_signed(SECRET, signed(), BODY + b" ")
    assert not is_signed(SECRET, signed(new_secret()), BODY)
    assert not is_signed(SECRET, signed(age_seconds=301), BODY)
    rotating = signed()
    rotating["webhook-signature"] = signed(new_secret())["webhook-signature"] + " " + rotating["webhook-signature"]
    assert is_signed(SECRET, rotating, BODY)
