"""Authentication: the caller of a token.

A verified key is trusted for a second, counted from before the check, without asking again. So a revocation holds everywhere one
second after its commit, and a request with a key in use costs no statement.
"""

import asyncio
import hmac
import time

from app.domain.callers import STRANGERS, Caller
from app.domain.errors import Refusal
from app.domain.ids import chosen_api_key
from app.runtime.core import Core
from app.store import keys as store
from app.store.keys import KeyRow

CACHE_SECONDS = 1.0


async def authenticate(core: Core, token: str) -> Caller:
    """Return the caller of a token. Raises Refusal (unauthenticated), Unavailable."""
    known = core.keys.callers.get(token)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    question = core.keys.questions.get(token)
    if question is None:
        question = asyncio.ensure_future(_ask(core, token))
        core.keys.questions[token] = question
        question.add_done_callback(lambda done: _answered(core, token, done))
    # Shielded, because others wait for the same answer.
    return await asyncio.shield(question)


def _answered(core: Core, token: str, question: "asyncio.Task[Caller]") -> None:
    core.keys.questions.pop(token, None)
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
