"""What is sealed of a handler: its headers, its signing secret, and what is secret of the address of a bridge."""

import json
from typing import Any, NamedTuple

import msgspec

from app.domain.bridges import AwsCredentials
from app.domain.handlers import HandlerDefinition, handler_secrets
from app.store.vault import Vault, VaultError


def secret_context(handler_id: int) -> str:
    """Return the context in which a signing secret is sealed."""
    # The same for the previous secret, so that a rotation can move the encrypted bytes unchanged.
    return f"handler:{handler_id}:secret"


def _headers_context(handler_id: int) -> str:
    return f"handler:{handler_id}:headers"


def seal_headers(vault: Vault, handler_id: int, headers: dict[str, str]) -> bytes:
    return vault.seal(json.dumps(headers), _headers_context(handler_id))


def open_headers_and_secret(
    vault: Vault, handler_id: int, headers: bytes, secret: bytes
) -> tuple[dict[str, str], str | None]:
    """Decrypt headers and secret; drop both if either fails. One damaged handler, or one restored from a database with another
    key, must not affect the others."""
    try:
        opened: dict[str, str] = json.loads(vault.open(headers, _headers_context(handler_id)))
        return opened, vault.open(secret, secret_context(handler_id))
    except VaultError:
        return {}, None


def _address_context(handler_id: int) -> str:
    return f"handler:{handler_id}:address"


def seal_address(vault: Vault, handler_id: int, definition: HandlerDefinition) -> bytes | None:
    """Encrypt what of an address is never shown; None for a webhook."""
    if definition.kind == "webhook":
        return None
    return vault.seal(json.dumps(handler_secrets(definition)), _address_context(handler_id))


class OpenedAddress(NamedTuple):
    """The fields of a bridge's address; none for a webhook."""

    fields: dict[str, Any]
    lost: bool
    """What of it is never shown cannot be decrypted, and is not among them."""


def open_address(vault: Vault, row: Any) -> OpenedAddress:
    if row["kind"] == "webhook":
        return OpenedAddress({}, False)
    plain: dict[str, Any] = json.loads(row["address"])
    try:
        secret = json.loads(vault.open(row["sealed_address"] or b"", _address_context(row["id"])))
    except VaultError:
        return OpenedAddress(plain, True)
    if secret.get("credentials") is not None:
        secret["credentials"] = msgspec.convert(secret["credentials"], AwsCredentials)
    return OpenedAddress(plain | secret, False)
