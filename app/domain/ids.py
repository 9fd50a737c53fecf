"""Ids of tasks (UUIDv7), API keys (`slk_<id>_<secret><crc>`), and access keys for SQS clients (`SLKA…` and a secret)."""

import base64
import hashlib
import re
import secrets
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
SHORT_ID = 12
"""How many letters of an id's end stand for it where people read: its last group, 48 bits that are random."""
_RANDOM_BITS = 74
_LOW = (1 << 62) - 1
_VARIANT = 0b10 << 62
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


class IdMaker:
    """UUIDv7 texts that always increase within one process, even when the clock stands still or steps back."""

    __slots__ = ("_head", "_last_ms", "_pool", "_rand", "_random", "_used")

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._last_ms = -1
        self._head = ""
        """The text of `_last_ms` and of the version."""
        self._rand = 0
        self._pool = b""
        self._used = 0

    def uuid7(self, now_ms: int) -> str:
        return self.uuid7s(now_ms, 1)[0]

    def uuid7s(self, now_ms: int, count: int) -> list[str]:
        """Return this many ids, in order."""
        if now_ms > self._last_ms:
            self._begin(now_ms)
        made = []
        for step in struct.unpack(f"{count}I", self._entropy(4 * count)):
            self._rand += 1 + step
            if self._rand >> _RANDOM_BITS:
                self._begin(self._last_ms + 1)
            low = f"{_VARIANT | self._rand & _LOW:016x}"
            made.append(f"{self._head}{self._rand >> 62:03x}-{low[:4]}-{low[4:]}")
        return made

    def _begin(self, ms: int) -> None:
        self._last_ms = ms
        self._head = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7"
        self._rand = int.from_bytes(self._entropy(10), "big") >> 7  # 73 bits: the top bit leaves room to count up

    def _entropy(self, count: int) -> bytes:
        # One call for entropy serves hundreds of ids; a system call per id would be most of its cost.
        if self._used + count > len(self._pool):
            self._pool = self._random(max(count, 4096))
            self._used = 0
        start, self._used = self._used, self._used + count
        return self._pool[start : self._used]


def parse_uuid(text: str) -> str | None:
    """Return the canonical (lower-case, hyphenated) form of a UUID, or None for anything else."""
    return text.lower() if _UUID.fullmatch(text) else None


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CRC_LENGTH = 12, 40, 6
_KEY = re.compile(rf"slk_([0-9a-zA-Z]{{{_ID_LENGTH}}})_([0-9a-zA-Z]{{{_SECRET_LENGTH}}})([0-9a-zA-Z]{{{_CRC_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its holder has it. Only `id` and `digest` are ever stored."""

    id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _checksum(stem: str) -> str:
    return _base62(zlib.crc32(stem.encode()), _CRC_LENGTH)


def make_api_key(random: Callable[[int], bytes] = secrets.token_bytes, *, key_id: str | None = None) -> ApiKey:
    """Return a new key; with `key_id`, one with a new secret for a key that has this id."""
    # More bits than the digits hold (256 for 238, 96 for 71), so that truncation favours no digit.
    key_id = key_id or _base62(int.from_bytes(random(12), "big"), _ID_LENGTH)
    secret = _base62(int.from_bytes(random(32), "big"), _SECRET_LENGTH)
    stem = f"slk_{key_id}_{secret}"
    return ApiKey(key_id, stem + _checksum(stem))


AWS_KEY_PATTERN = r"SLKA[A-Z2-7]{16}"
_AWS_KEY = re.compile(AWS_KEY_PATTERN)
_AWS_SECRET_LENGTH = 40


def aws_key(seed: ApiKey, *, key_id: str | None = None) -> ApiKey:
    """Return the access key for SQS clients that a new key stands for: its id is the access key id, its text the secret access key.

    The same seed gives the same key. With `key_id`, it is a new secret for the key that has this id.
    """
    made = hashlib.sha512(b"aws " + seed.text.encode()).digest()
    key_id = key_id or "SLKA" + base64.b32encode(made[:10]).decode()
    return ApiKey(key_id, _base62(int.from_bytes(made[10:42], "big"), _AWS_SECRET_LENGTH))


def is_aws_key_id(text: str) -> bool:
    return _AWS_KEY.fullmatch(text) is not None


def parse_api_key(text: str) -> ApiKey | None:
    """Return the key, or None if it cannot be one: the checksum catches typing errors without asking the database."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-_CRC_LENGTH]) != match[3]:
        return None
    return ApiKey(match[1], text)


_CHOSEN = re.compile(r"slk_[A-Za-z0-9_-]{24,196}")
CHOSEN_KEY_RULE = "slk_ and 24 to 196 letters, digits, _ or -"


def chosen_api_key(text: str) -> ApiKey | None:
    """Parse a bootstrap key that a person made up. It contains no id, so one is derived. None if it is not a key at all."""
    if _CHOSEN.fullmatch(text) is None:
        return None
    return parse_api_key(text) or ApiKey("b" + hashlib.sha256(text.encode()).hexdigest()[:11], text)
