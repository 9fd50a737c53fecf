"""Authentication: the caller of a token, and of an access key with which SQS clients sign.

A verified key is trusted for a second, counted from before the check, without asking again. So a revocation holds everywhere one
second after its commit, and a request with a key in use costs no statement.
"""

import asyncio
import hmac
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

from app.domain.callers import STRANGERS, Caller
from app.domain.errors import Refusal
from app.domain.ids import chosen_api_key, is_aws_key_id
from app.runtime.core import Core
from app.runtime.known_keys import Signer
from app.store import keys as store
from app.store.keys import KeyRow
from app.store.vault import VaultError

CACHE_SECONDS = 1.0

T = TypeVar("T")


async def authenticate(core: Core, token: str) -> Caller:
    """Return the caller of a token. Raises Refusal (unauthenticated), Unavailable."""
    known = core.keys.callers.get(token)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    return await _once(core.keys.questions, token, lambda: _ask(core, token))


async def signer(core: Core, key_id: str) -> Signer:
    """Return whose signatures to expect with an access key id. Raises Refusal (unauthenticated), Unavailable."""
    known = core.keys.signers.get(key_id)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    return await _once(core.keys.signer_questions, key_id, lambda: _ask_signer(core, key_id))


async def _once(questions: "dict[str, asyncio.Task[T]]", key: str, ask: Callable[[], Coroutine[None, None, T]]) -> T:
    """Ask, or wait for the answer to the same question."""
    question = questions.get(key)
    if question is None:
        question = questions[key] = asyncio.create_task(ask())
        question.add_done_callback(lambda done: _answered(questions, key, done))
    # Shielded, because others wait for the same answer.
    return await asyncio.shield(question)


def _answered(questions: "dict[str, asyncio.Task[T]]", key: str, question: "asyncio.Task[T]") -> None:
    questions.pop(key, None)
    if not question.cancelled():
        question.exception()  # everyone who asked may have gone, so nobody else would retrieve it


async def _ask(core: Core, token: str) -> Caller:
    asked = time.monotonic()
    key = chosen_api_key(token)
    # a key that was valid a second ago must not queue behind invalid ones
    db = core.db if token in core.keys.callers else core.db.lookups(STRANGERS)
    row = None if key is None else await store.find(db, key.id)
    trusted = None if key is None or row is None else _trusted_seconds(row, key.digest)
    if row is None or trusted is None:
        core.keys.callers.pop(token, None)
        raise _refused()
    caller = _caller(row)
    core.keys.callers[token] = (asked + trusted, caller)
    core.keys.used[row.id] = row.now
    return caller


async def _ask_signer(core: Core, key_id: str) -> Signer:
    asked = time.monotonic()
    db = core.db if key_id in core.keys.signers else core.db.lookups(STRANGERS)
    row = await store.find(db, key_id) if is_aws_key_id(key_id) else None
    try:
        secrets = [] if row is None else store.secrets_of(core.vault, row)
    except VaultError:
        raise Refusal("unauthenticated", f"the secret of {key_id} cannot be decrypted; rotate the key") from None
    if row is None or not secrets:
        core.keys.signers.pop(key_id, None)
        raise _refused()
    ends = [(end - row.now).total_seconds() for _, end in secrets if end is not None]
    found = Signer(_caller(row), tuple(secret for secret, _ in secrets))
    core.keys.signers[key_id] = (asked + min([CACHE_SECONDS, *ends]), found)
    core.keys.used[row.id] = row.now
    return found


async def caller_of(core: Core, key_id: str, digest: bytes) -> Caller:
    """Return the caller of a token of which only the digest is known, as a session's is. Raises Refusal (unauthenticated),
    Unavailable."""
    row = await store.find(core.db.lookups(STRANGERS), key_id)
    if row is None or _trusted_seconds(row, digest) is None:
        raise _refused()
    core.keys.used[row.id] = row.now
    return _caller(row)


def _caller(row: KeyRow) -> Caller:
    return Caller(row.tenant_id, row.tenant, row.scope, row.id, row.queues, row.payloads, row.expires_at)


def _refused() -> Refusal:
    return Refusal(
        "unauthenticated",
        "the key is unknown, has expired or has been revoked; create one with `sluice keys create`",
    )


def _trusted_seconds(row: KeyRow, digest: bytes) -> float | None:
    """Return for how long the token with this digest may be trusted without asking again; None: it is not valid."""
    if row.revoked_at is not None:
        return None
    ends = [] if row.expires_at is None else [row.expires_at]
    if not hmac.compare_digest(row.digest, digest):
        if row.previous_digest is None or not hmac.compare_digest(row.previous_digest, digest):
            return None
        ends += [row.previous_until or row.now]
    left = min(((end - row.now).total_seconds() for end in ends), default=CACHE_SECONDS)
    return None if ends and left <= 0 else min(CACHE_SECONDS, left)
