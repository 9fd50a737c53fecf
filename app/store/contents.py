"""The content of tasks whose queue encrypts: payload, result and excerpts, as they are stored.

Each is encrypted for its place: the tenant, the task, and which of the three it is. So what was changed, or copied from another
place, does not open. The document of what a task carries says that it is encrypted (`sealed`): its queue may have changed since.

A payload that the database copies to another task, where no replica could encrypt it again, stays as it was encrypted, and
`sealed_for` says for what: the task it comes from, or what a schedule or a batch kept it under until then (docs/decisions/0092).
"""

import base64
import binascii
import uuid

import msgspec

from app.domain.options import Options
from app.store.tasks import AttemptEnd
from app.store.vault import Vault, VaultError

CONTENT_LOST = "the content of the task cannot be decrypted: it was changed in the database, or moved from another task"
_EXCERPT = "sealed:"
"""How an encrypted excerpt begins, which is text."""


def seal_payload(vault: Vault, tenant_id: int, sealed_for: str, payload: bytes) -> bytes:
    return vault.seal_content(payload, _place("payload", tenant_id, sealed_for))


def seal_apart(vault: Vault, tenant_id: int, payload: bytes) -> tuple[str, bytes]:
    """Encrypt a payload that no task has yet; return what it is sealed for, and the ciphertext: the same for the same payload."""
    sealed_for = str(uuid.UUID(bytes=vault.digest(payload, _place("apart", tenant_id, ""))[:16]))
    place = _place("payload", tenant_id, sealed_for)
    return sealed_for, vault.seal_content(payload, place, nonce=vault.digest(payload, place)[:12])


def completion_digest(vault: Vault, queue_id: int, payload: bytes, type: str | None) -> bytes:
    """Return by what a batch tells whether it has been told before to enqueue this when it completes.

    It is of the payload before encryption, so that the same is the same although its queue has begun or ceased to encrypt."""
    named = b"" if type is None else b"\x00" + type.encode()  # no payload has a NUL
    return vault.digest(queue_id.to_bytes(8, "big") + payload + named, "completion")


def open_apart(vault: Vault, tenant_id: int, sealed_for: str, sealed: bytes) -> bytes:
    """Raises VaultError."""
    return vault.open_content(sealed, _place("payload", tenant_id, sealed_for))


def open_payload(vault: Vault, tenant_id: int, task_id: str, options: Options, payload: bytes) -> bytes:
    """Return a task's payload as it was sent. Raises VaultError."""
    if not options.sealed:
        return payload
    return vault.open_content(payload, _place("payload", tenant_id, options.sealed_for or task_id))


def recoded(vault: Vault, tenant_id: int, before: Options, after: Options, payload: bytes) -> bytes:
    """Return the payload of a schedule, stored as its options were, as it is stored as they are to be. Raises VaultError."""
    plain = open_payload(vault, tenant_id, "", before, payload)
    return seal_payload(vault, tenant_id, after.sealed_for or "", plain) if after.sealed else plain


def open_result(vault: Vault, tenant_id: int, task_id: str, options: Options, result: bytes) -> bytes:
    """Raises VaultError."""
    return vault.open_content(result, _place("result", tenant_id, task_id)) if options.sealed else result


def seal_outcome(vault: Vault, tenant_id: int, options: Options, outcome: AttemptEnd) -> AttemptEnd:
    """Return the outcome with its result and excerpt as its task stores them."""
    if not options.sealed:
        return outcome
    result, excerpt = outcome.result, outcome.excerpt
    if result is not None:
        result = vault.seal_content(result, _place("result", tenant_id, outcome.task_id))
    if excerpt is not None:
        sealed = vault.seal_content(excerpt.encode(), _place("excerpt", tenant_id, outcome.task_id))
        excerpt = _EXCERPT + base64.b64encode(sealed).decode()
    return outcome._replace(result=result, excerpt=excerpt)


def open_excerpt(vault: Vault, tenant_id: int, task_id: str, excerpt: str | None) -> str | None:
    """Return an excerpt as it was. What only looks encrypted is a handler's own text, or was changed, and is returned as it is."""
    if excerpt is None or not excerpt.startswith(_EXCERPT):
        return excerpt
    try:
        sealed = base64.b64decode(excerpt.removeprefix(_EXCERPT), validate=True)
        return vault.open_content(sealed, _place("excerpt", tenant_id, task_id)).decode()
    except (binascii.Error, ValueError, VaultError):
        return excerpt


def sealed_options(options: Options) -> Options:
    return msgspec.structs.replace(options, sealed=True)


def _place(what: str, tenant_id: int, owner: str) -> str:
    return f"{what} {tenant_id} {owner}"
