"""Seals secrets that must be read again (signing secrets, handler headers) with AES-256-GCM.

The data key is made once and kept in sluice.keyring. With an encryption key from the settings it is stored wrapped, so that a
copy of the database alone opens nothing; without one it is stored as it is, which protects a leaked column or log, no more.
A key given later wraps the data key that is there; a wrong or missing one refuses to start.
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
    """The keyring cannot be opened with the encryption key given; the message says what to do."""


class Vault:
    def __init__(self, data_key: bytes) -> None:
        self._cipher = AESGCM(data_key)

    def seal(self, text: str, context: str) -> bytes:
        """context is bound to the sealed value: a value copied to another row does not open there."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """Raises VaultError for a value that was changed or sealed for another context."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError):  # ValueError: it is too short to be anything
            raise VaultError("a sealed value does not open: it was changed, or moved from another row") from None


async def open_vault(db: Database, encryption_key: bytes | None) -> Vault:
    """Make or read the data key. Raises VaultError, Unavailable."""
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
            "The secrets in this database are sealed with an encryption key: set SLUICE_ENCRYPTION_KEY to it."
        )
    try:
        return AESGCM(encryption_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], b"keyring")
    except InvalidTag:
        raise VaultError(
            "SLUICE_ENCRYPTION_KEY is not the key that the secrets in this database were sealed with: set it to that one."
        ) from None
