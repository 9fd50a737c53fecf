"""Encrypts secrets that must be readable again (signing secrets, handler headers), and content of tasks, with AES-256-GCM.

The data key is generated once and stored in sluice.keyring. With an encryption key in the settings it is stored wrapped, so that a
copy of the database alone decrypts nothing. Without one it is stored in the clear, which only protects a leaked column or log. An
encryption key set later wraps the existing data key. The keyring remembers which key that was, by its fingerprint: a start without
that key fails and names it. Of several keys in the settings the first wraps, and all unwrap.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.callers import Act
from app.store import tenants
from app.store.audit import record_by
from app.store.db import Database
from app.store.statements import sql

NONCE_BYTES = 12
CONTENT_VERSION = b"\x01"
FIRST_TENANT = "default"
"""There from the first migration on."""
_ADD_KEY = sql("add_data_key")
_READ_KEY = sql("read_data_key")
_WRAP_KEY = sql("wrap_data_key")


class VaultError(Exception):
    """Raised if no encryption key opens the keyring; the message says what to do."""


class Vault:
    def __init__(self, data_key: bytes, *, wrapped: bool = False) -> None:
        self._data_key = data_key
        self._cipher = AESGCM(data_key)
        self.fingerprint_key = self.digest(b"", "fingerprints")
        """Under which idempotency fingerprints and the ETags of what hides something are made, so that neither a copy of the
        database nor an ETag confirms a guess at a payload or a header."""
        self.wrapped = wrapped
        """Whether the data key is stored encrypted, so that a copy of the database alone decrypts nothing."""

    def seal(self, text: str, context: str) -> bytes:
        """Encrypt a value bound to `context`, so that a copy in another row cannot be decrypted."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt a value. Raises VaultError if it was changed or encrypted for another context."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError):  # ValueError: it is too short
            raise VaultError(
                "an encrypted value cannot be decrypted: it was changed, or moved from another row"
            ) from None

    def seal_content(self, content: bytes, place: str, nonce: bytes | None = None) -> bytes:
        """Encrypt content under a key of its place, derived from the data key: of the many values of all tasks, only those of one
        place share a key, and so the space of random nonces. A `nonce` must depend on content and place."""
        nonce = nonce or os.urandom(NONCE_BYTES)
        return CONTENT_VERSION + nonce + self._content_cipher(place).encrypt(nonce, content, place.encode())

    def open_content(self, sealed: bytes, place: str) -> bytes:
        """Raises VaultError if it was changed, or encrypted for another place."""
        try:
            if sealed[:1] == CONTENT_VERSION:
                return self._content_cipher(place).decrypt(sealed[1:13], sealed[13:], place.encode())
        except (InvalidTag, ValueError):
            pass
        raise VaultError("encrypted content cannot be decrypted: it was changed, or moved from another place")

    def digest(self, content: bytes, purpose: str) -> bytes:
        """Return 32 bytes that only the holder of the data key can make of the content."""
        return hmac.digest(hmac.digest(self._data_key, purpose.encode(), "sha256"), content, "sha256")

    def _content_cipher(self, place: str) -> AESGCM:
        return AESGCM(hmac.digest(self._data_key, b"content " + place.encode(), "sha256"))


async def open_vault(db: Database, encryption_keys: Sequence[bytes]) -> Vault:
    """Read the data key, creating it if necessary. Raises VaultError, Unavailable."""
    first = encryption_keys[0] if encryption_keys else None
    made = os.urandom(32)
    await db.fetch(
        _ADD_KEY,
        _wrap(made, first) if first else made,
        fingerprint(first) if first else None,
    )
    data_key, wrapped_by = await _read(db, encryption_keys)
    if wrapped_by is None and first is not None:
        await _rewrap(db, data_key, first, None, "system")
    return Vault(data_key, wrapped=first is not None)


async def rewrap(db: Database, encryption_keys: Sequence[bytes]) -> str:
    """Wrap the data key with the first of the keys; return that key's fingerprint. Raises VaultError, Unavailable."""
    if not encryption_keys:
        raise VaultError("SLUICE_ENCRYPTION_KEY is not set: set it to the new key and the present one, in this order.")
    data_key, wrapped_by = await _read(db, encryption_keys)
    first = encryption_keys[0]
    if wrapped_by != fingerprint(first) and not await _rewrap(db, data_key, first, wrapped_by, "cli"):
        raise VaultError("Somebody else has changed the keyring at the same time: run this command again.")
    return fingerprint(first)


def fingerprint(encryption_key: bytes) -> str:
    """Return what names a key without telling anything of it: 16 hexadecimal digits."""
    return hashlib.sha256(b"sluice encryption key " + encryption_key).hexdigest()[:16]


async def _read(db: Database, encryption_keys: Sequence[bytes]) -> tuple[bytes, str | None]:
    """Return the data key and the fingerprint of the key that it is wrapped with; None if it is not wrapped."""
    rows = await db.fetch(_READ_KEY)
    if not rows:
        raise VaultError("The database has no data key yet: start a replica on it once.")
    stored, wrapped_by = rows[0]["data_key"], rows[0]["wrapped_by"]
    return (stored if wrapped_by is None else _unwrap(stored, wrapped_by, encryption_keys)), wrapped_by


async def _rewrap(
    db: Database, data_key: bytes, encryption_key: bytes, wrapped_by: str | None, actor: Literal["cli", "system"]
) -> bool:
    """Return whether it was still wrapped by `wrapped_by`. The data key is of all tenants; the first has its row in the audit."""
    name = fingerprint(encryption_key)
    async with db.begin(None) as connection:
        if not await connection.fetch(_WRAP_KEY, _wrap(data_key, encryption_key), name, wrapped_by):
            return False
        tenant_id = await tenants.id_of(connection, FIRST_TENANT)
        act = Act("rewrap", "data_key", name, None)
        await record_by(actor, connection, tenant_id, act, {"wrapped_by": wrapped_by}, {"wrapped_by": name})
    return True


def _wrap(data_key: bytes, encryption_key: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(encryption_key).encrypt(nonce, data_key, b"keyring")


def _unwrap(wrapped: bytes, wrapped_by: str, encryption_keys: Sequence[bytes]) -> bytes:
    for key in encryption_keys:
        if fingerprint(key) == wrapped_by:
            try:
                return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], b"keyring")
            except (InvalidTag, ValueError):
                raise VaultError(
                    "The data key in sluice.keyring was changed: restore that table from a backup of this database."
                ) from None
    given = ", ".join(map(fingerprint, encryption_keys))
    has = f"has only {given}" if given else "is not set"
    raise VaultError(
        f"The secrets in this database are encrypted with the key of fingerprint {wrapped_by}, but SLUICE_ENCRYPTION_KEY {has}:"
        " add that key to it."
    )
