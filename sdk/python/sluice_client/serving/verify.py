"""Standard Webhooks 1.0: tells the requests that Sluice has signed from all others.

The signature (`v1`) is HMAC-SHA256 over `id.timestamp.body`, under the handler's secret: https://www.standardwebhooks.com/
"""

import hmac
import re
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping

TOLERANCE_SECONDS = 300
"""How far the clocks of the two machines may be apart, and so how long a request can be replayed."""
MAX_SIGNATURES = 16
"""A request of Sluice's has one, or two while a secret is being rotated."""

_TIMESTAMP = re.compile("[0-9]{1,12}")


class NotSigned(Exception):
    """The request is not Sluice's, or it is too old. The text says which, and may be shown to the sender."""


class Verifier:
    """Verifies requests under any of these secrets (`whsec_…`), so that one can be rotated without a gap.

    Raises ValueError if there is none, or one is not a secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        if isinstance(secrets, str):
            raise ValueError('secrets is a list: secrets=["whsec_…"]')
        self._keys = [_key(secret) for secret in secrets]
        if not self._keys:
            raise ValueError("at least one secret is needed: without one, anybody could run tasks here")

    def check_head(self, headers: Mapping[str, str]) -> int:
        """Return the request's timestamp, once what can be checked without its body is checked. Raises NotSigned.

        Names of headers are in lower case.
        """
        sent_at = headers.get("webhook-timestamp", "")
        if not headers.get("webhook-id") or not headers.get("webhook-signature") or not _TIMESTAMP.fullmatch(sent_at):
            raise NotSigned("the headers webhook-id, webhook-timestamp and webhook-signature are missing or malformed")
        if abs(time.time() - int(sent_at)) > TOLERANCE_SECONDS:
            raise NotSigned(
                f"webhook-timestamp is more than {TOLERANCE_SECONDS} seconds away from this machine's clock"
            )
        return int(sent_at)

    def check(self, headers: Mapping[str, str], body: bytes) -> int:
        """Return the timestamp of a request that Sluice has signed. Raises NotSigned.

        Every signature is compared with every expected one in constant time, whatever has been found already.
        """
        sent_at = self.check_head(headers)
        message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = [b"v1," + b64encode(hmac.digest(key, message, "sha256")) for key in self._keys]
        given = headers["webhook-signature"].encode().split()[:MAX_SIGNATURES]
        matches = [hmac.compare_digest(one, other) for one in given for other in expected]
        if not any(matches):
            raise NotSigned("no signature of this request was made with a secret that is known here")
        return sent_at


def _key(secret: str) -> bytes:
    """Return the key of a secret. Padding may be missing."""
    text = secret.removeprefix("whsec_")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if text == secret or not 24 <= len(key) <= 64:
        raise ValueError(
            "a secret is whsec_ followed by 24 to 64 bytes in base64; Sluice shows a handler's once, when it is made"
        )
    return key
