"""Every signature that is sent is accepted by verifiers that others wrote."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.webhooks import Webhook as Svix

from app.delivery.kinds import Call
from app.delivery.webhook.requests import headers_of, render
from app.delivery.webhook.signing import new_secret

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
SECRETS = st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=2, unique=True)
CALL = {
    "url": "http://127.0.0.1/hook",
    "tenant": "default",
    "queue": "q",
    "attempt": 1,
    "max_attempts": 25,
    "lease_token": "t",
    "task_url": "http://127.0.0.1/tasks/t",
    "timeout_seconds": 30.0,
}


def encoded(key: bytes, padded: bool) -> str:
    text = base64.b64encode(key).decode()
    return "whsec_" + (text if padded else text.rstrip("="))


def sent(secrets: tuple[str, ...], task_id: str, payload: bytes, late: timedelta) -> dict[str, str]:
    call = Call(**CALL, task_id=task_id, payload=payload, secrets=secrets)  # type: ignore[arg-type]
    return headers_of(render(call, datetime.now(UTC) + late)[1])


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
@given(
    keys=SECRETS,
    padded=st.booleans(),
    task_id=st.uuids().map(str),
    payload=JSON,
    indent=st.sampled_from([None, 2]),
    late=st.integers(-240, 240),
)
def test_verifiers_of_others_accept_what_is_sent(
    library: str, keys: list[bytes], padded: bool, task_id: str, payload: Any, indent: int | None, late: int
) -> None:
    body = json.dumps(payload, indent=indent, ensure_ascii=indent is None).encode()
    secrets = tuple(encoded(key, padded) for key in keys)
    headers = sent(secrets, task_id, body, timedelta(seconds=late))
    for key in keys:
        assert verified(library, encoded(key, True), body, headers) == payload


def verified(library: str, secret: str, body: bytes, headers: dict[str, str]) -> Any:
    if library == "standardwebhooks":
        return Webhook(secret).verify(body, headers)
    Svix(secret).verify(body, headers)
    return json.loads(body)


@given(keys=SECRETS, task_id=st.uuids().map(str), body=TEXTS.map(str.encode), at=st.integers(0, 900))
def test_nothing_altered_is_accepted_and_no_other_secret(keys: list[bytes], task_id: str, body: bytes, at: int) -> None:
    secrets = tuple(encoded(key, True) for key in keys)
    headers = sent(secrets, task_id, body, timedelta())
    at %= len(body) + 1
    altered = [
        (secrets[0], body[:at] + b"!" + body[at:], headers),
        (secrets[0], body, headers | {"webhook-id": task_id[::-1] + "0"}),
        (secrets[0], body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        (new_secret(), body, headers),
    ]
    for secret, given_body, given_headers in altered:
        with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
            Webhook(secret).verify(given_body, given_headers, json_parse=False)
