"""Standard Webhooks 1.0: symmetric signatures (v1) over `id.timestamp.body`."""

import hmac
import secrets as randomness
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from functools import lru_cache

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES, NEW_BYTES = 24, 64, 32


def new_secret() -> str:
    return PREFIX + b64encode(randomness.token_bytes(NEW_BYTES)).decode()


@lru_cache(maxsize=1024)
def parse_secret(secret: str) -> bytes:
    """Return the key of a secret. Raises ValueError. Padding may be missing, as with other signers. Cached, because every call
    needs it."""
    text = secret.removeprefix(PREFIX)
    if text == secret:
        raise ValueError(f"a signing secret must begin with {PREFIX}")
    try:
        key = b64decode(text if text.endswith("=") else text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        raise ValueError(f"a signing secret must be base64 after {PREFIX}") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"a signing secret must encode {MIN_BYTES} to {MAX_BYTES} bytes")
    return key


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature per secret, in the given order, the newest first."""
    message = f"{message_id}.{timestamp}.".encode() + body
    return " ".join([f"v1,{_signature(secret, message)}" for secret in secrets])


def _signature(secret: str, message: bytes) -> str:
    signing = _keyed(secret).copy()
    signing.update(message)
    return b64encode(signing.digest()).decode()


@lru_cache(maxsize=1024)
def _keyed(secret: str) -> hmac.HMAC:
    """Return the state of the algorithm after the key, which is the same for every message."""
    return hmac.new(parse_secret(secret), digestmod="sha256")
