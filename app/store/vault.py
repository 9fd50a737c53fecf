"""Encrypts secrets that must be readable again (signing secrets, handler headers) with AES-256-GCM.

The data key is generated once and stored in sluice.keyring. With an encryption key in the settings it is stored wrapped, so that a
copy of the database alone decrypts nothing. Without one it is stored in the clear, which only protects a leaked column or log. An
encryption key set later wraps the existing data key; with a wrong or missing one the start fails.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.store.db import Database
from app.store.statements import sql

NONCE_BYTES = 12
_ADD_KEY = sql("add_data_key")
_READ_KEY = sql("read_data_key")
_WRAP_KEY = sql("wrap_data_key")


class VaultError(Exception):
    """Raised if the encryption key does not open the keyring; the message says what to do."""


class Vault:
    def __init__(self, data_key: bytes) -> None:
        self._cipher = AESGCM(data_key)

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


async def open_vault(db: Database, encryption_key: bytes | None) -> Vault:
    """Read the data key, creating it if necessary. Raises VaultError, Unavailable."""
    made = os.urandom(32)
    await db.fetch(
        _ADD_KEY,
        _wrap(made, encryption_key) if encryption_key else made,
        encryption_key is not None,
    )
    (row,) = await db.fetch(_READ_KEY)
    if row["wrapped"]:
        return Vault(_unwrap(row["data_key"], encryption_key))
    if encryption_key is not None:
        await db.fetch(
            _WRAP_KEY,
            _wrap(row["data_key"], encryption_key),
        )
    return Vault(row["data_key"])


def _wrap(data_key: bytes, encryption_key: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(encryption_key).encrypt(nonce, data_key, b"keyring")


def _unwrap(wrapped: bytes, encryption_key: bytes | None) -> bytes:
    if encryption_key is None:
        raise VaultError(
            "The secrets in this database are encrypted with an encryption key: set SLUICE_ENCRYPTION_KEY to it."
        )
    try:
        return AESGCM(encryption_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], b"keyring")
    except InvalidTag:
        raise VaultError(
            "The secrets in this database were encrypted with a different SLUICE_ENCRYPTION_KEY: set it to that key."
        ) from None
