"""Verbs on sessions: a person exchanges a key for a cookie, and acts as that key until the session ends.

A session ends when it is closed, after SESSION_SECONDS, or with the token that opened it: the key is looked up at each request, so
that revoking or rotating it needs no search for its sessions.
"""

import hashlib
import hmac
import secrets
from datetime import timedelta

from app.domain.callers import STRANGERS, Caller
from app.domain.errors import Refusal
from app.domain.ids import chosen_api_key
from app.runtime.core import Core
from app.service import authentication
from app.store import sessions

SESSION_SECONDS = 12 * 3600
MAX_COOKIE = 64


async def open_session(core: Core, token: str) -> str:
    """Return the cookie of a new session for the key `token`. Raises Refusal (unauthenticated), Unavailable."""
    await authentication.authenticate(core, token)
    key = chosen_api_key(token)
    assert key is not None, "it has been authenticated"
    cookie = make_cookie()
    lifetime = timedelta(seconds=SESSION_SECONDS)
    await sessions.insert_new(core.db.lookups(STRANGERS), _digest(cookie), key, lifetime)
    return cookie


async def caller_of(core: Core, cookie: str) -> Caller:
    """Return the caller of a session. Raises Refusal (unauthenticated) if it or its key has ended, Unavailable."""
    if len(cookie) > MAX_COOKIE:
        raise _ended()
    found = await sessions.key_of(core.db.lookups(STRANGERS), _digest(cookie))
    if found is None:
        raise _ended()
    return await authentication.caller_of(core, *found)


async def close_session(core: Core, cookie: str) -> None:
    """End a session everywhere. Ending it again does nothing."""
    await sessions.remove(core.db.lookups(STRANGERS), _digest(cookie))


def make_cookie() -> str:
    return secrets.token_urlsafe(32)


def form_token(cookie: str) -> str:
    """Return what each form of this cookie's holder carries; another site can neither read nor compute it."""
    return hmac.new(cookie.encode(), b"form", hashlib.sha256).hexdigest()[:32]


def is_form_token(cookie: str, token: str) -> bool:
    return hmac.compare_digest(form_token(cookie).encode(), token.encode())


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


def _ended() -> Refusal:
    return Refusal("unauthenticated", "the session has ended; sign in again")
