"""The three S3 requests that the cleanup needs, signed with Signature Version 4. Works with any S3-compatible server."""

import hashlib
import hmac
import http.client
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_plus, urlsplit

SAFE = "-_.~"
EMPTY = hashlib.sha256(b"").hexdigest()
TIMEOUT_SECONDS = 20


class S3Error(Exception):
    """The server refused, or did not respond."""


@dataclass(frozen=True)
class Found:
    key: str
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Listing:
    objects: list[Found]
    prefixes: list[str]
    more: bool


@dataclass(frozen=True)
class Account:
    endpoint: str
    region: str
    key_id: str
    secret: str


def authorization(account: Account, method: str, path: str, query: str, signed: dict[str, str]) -> str:
    """Signature Version 4 of a request without a body. `path` and `query` are as sent; `signed` has host and x-amz-*."""
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = "\n".join((method, path, query, lines, names, EMPTY))
    at = signed["x-amz-date"]
    scope = f"{at[:8]}/{account.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = b"AWS4" + account.secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    signature = hmac.digest(key, text.encode(), hashlib.sha256).hex()
    return f"AWS4-HMAC-SHA256 Credential={account.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"


class Bucket:
    """One connection to one bucket, by path: endpoint/bucket/key."""

    def __init__(self, account: Account, name: str) -> None:
        url = urlsplit(account.endpoint)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(url.netloc, timeout=TIMEOUT_SECONDS)
        self._account, self._host, self._name = account, url.netloc, name

    def close(self) -> None:
        self._connection.close()

    def list(self, prefix: str, after: str, count: int, delimiter: str = "") -> Listing:
        """Up to `count` keys with the prefix that sort after `after`; keys that are equal up to the delimiter are one prefix."""
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(count), "prefix": prefix}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"start-after": after} if after else {}
        status, _, body = self._request("GET", "", query)
        if status != 200:
            raise S3Error(f"listing answered {status}")
        try:
            root = ET.fromstring(body)  # noqa: S314  # you chose the server
        except ET.ParseError as error:
            raise S3Error(f"the response to a listing is not XML: {error}") from error
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        return Listing(
            objects=[
                Found(
                    unquote_plus(one.findtext(f"{space}Key", "")),
                    one.findtext(f"{space}ETag", ""),
                    datetime.fromisoformat(one.findtext(f"{space}LastModified", "")),
                )
                for one in root.iter(f"{space}Contents")
            ],
            prefixes=[unquote_plus(one.findtext(f"{space}Prefix", "")) for one in root.iter(f"{space}CommonPrefixes")],
            more=root.findtext(f"{space}IsTruncated") == "true",
        )

    def head(self, key: str) -> Found | None:
        """The object as it is now, or None if there is none."""
        status, headers, _ = self._request("HEAD", key)
        if status == 404:
            return None
        if status != 200:
            raise S3Error(f"HEAD answered {status}")
        return Found(key, headers["etag"], parsedate_to_datetime(headers["last-modified"]))

    def delete(self, key: str, etag: str) -> bool:
        """Delete the object if it is still this one, or gone already. False if it is a different one now."""
        status, _, _ = self._request("DELETE", key, headers={"if-match": etag})
        if status in (409, 412):
            return False
        if status not in (200, 204, 404):
            raise S3Error(f"DELETE answered {status}")
        return True

    def _request(
        self, method: str, key: str, query: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        path = f"/{self._name}/{quote(key, safe=SAFE + '/')}" if key else f"/{self._name}"
        pairs = sorted((query or {}).items())
        text = "&".join(f"{quote(name, safe=SAFE)}={quote(value, safe=SAFE)}" for name, value in pairs)
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": self._host, "x-amz-content-sha256": EMPTY, "x-amz-date": at}
        sent = {**signed, **(headers or {}), "authorization": authorization(self._account, method, path, text, signed)}
        try:
            self._connection.request(method, f"{path}?{text}" if text else path, headers=sent)
            answer = self._connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise S3Error(f"{method}: {error!r}") from error
