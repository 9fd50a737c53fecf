import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.delivery.webhook.signing import new_secret, parse_secret, sign


@given(
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map(str.encode),
    message_id=st.text("abcdef0123456789-", min_size=1, max_size=40),
    keys=st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=2, unique=True),
)
def test_an_independent_verifier_accepts_each_secret_and_nothing_altered(
    body: bytes, message_id: str, keys: list[bytes]
) -> None:
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    timestamp = int(datetime.now(UTC).timestamp())
    signature = sign(secrets, message_id, timestamp, body)
    assert len(signature.split(" ")) == len(secrets)
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    for secret in secrets:
        Webhook(secret).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body + b"x", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers, json_parse=False)


def test_the_specification_s_own_example_verifies() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_bytes_that_are_no_text_can_be_signed() -> None:
    assert sign([new_secret()], "id", 1, b"\xff\x00").startswith("v1,")


def test_a_new_secret_is_random_and_can_be_supplied_again() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(parse_secret(first)) == 32


@pytest.mark.parametrize("size", [24, 25, 26, 64])
def test_a_secret_may_come_without_padding(size: int) -> None:
    key = bytes(range(size))
    text = "whsec_" + base64.b64encode(key).decode()
    assert parse_secret(text) == parse_secret(text.rstrip("=")) == key


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        base64.b64encode(b"k" * 32).decode(),
        "whsec_" + base64.b64encode(b"k" * 23).decode(),
        "whsec_" + base64.b64encode(b"k" * 65).decode(),
        "whsec_" + base64.b64encode(b"k" * 32).decode()[:-3],
        "whsec_" + "é" * 40,
        "whsec_" + "A" * 30 + "\n" + "A" * 13,
        "whsec_" + "-_" * 20,
    ],
)
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="signing secret"):
        parse_secret(secret)
