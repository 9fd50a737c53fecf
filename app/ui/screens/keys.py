"""API keys: who may do what, until when, and when each was used last."""

from datetime import UTC, datetime

import msgspec
from starlette.responses import Response

from app.domain.errors import Refusal
from app.domain.ids import ApiKey, make_api_key, parse_api_key
from app.domain.instants import format_instant, parse_instant
from app.domain.keys import KeyBody, KeyView
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import keys
from app.ui.visits import Visit

LIST = binding("keys")
OVERLAP_SECONDS = 86_400.0


async def show_all(visit: Visit) -> Response:
    position = position_of(visit.query("cursor"), LIST, _position)
    items, last = await keys.list_page(
        visit.core, visit.caller, None, _position(position) if position else None, DEFAULT_LIMIT
    )
    following = None if last is None else next_cursor(LIST, f"{format_instant(last[0])} {last[1]}")
    return visit.page(
        "keys.html", here="keys", keys=items, following=following, first=position is None, made=make_api_key().text
    )


async def create(visit: Visit) -> Response:
    """Show the new token. The form has it, so a form that is sent twice makes one key."""
    queues = [part.strip() for part in visit.form.get("queues", "").split(",") if part.strip()]
    given = {
        "kind": visit.form.get("kind", "bearer"),
        "scope": visit.form.get("scope", "manage"),
        "payloads": "payloads" in visit.form,
        "queues": queues or None,
        "expires_at": visit.form.get("expires_at") or None,
        "description": visit.form.get("description") or None,
    }
    try:
        body = msgspec.convert(given, KeyBody)
    except msgspec.ValidationError as error:
        raise Refusal("invalid", str(error)[:1].lower() + str(error)[1:]) from None
    key = await keys.issue(visit.core, visit.caller, body, _made(visit))
    return visit.page("key_token.html", here="keys", key=key)


async def ask_revoke(visit: Visit) -> Response:
    return visit.page("key_revoke.html", here="keys", key=await keys.get(visit.core, visit.caller, _id(visit)))


async def revoke(visit: Visit) -> Response:
    await keys.withdraw(visit.core, visit.caller, _id(visit))
    return visit.redirect("keys", notice="key-revoked")


async def ask_rotate(visit: Visit) -> Response:
    key = await keys.get(visit.core, visit.caller, _id(visit))
    return visit.page("key_rotate.html", here="keys", key=key, made=_new_secret(key).text)


async def rotate(visit: Visit) -> Response:
    key = await keys.renew(visit.core, visit.caller, _id(visit), OVERLAP_SECONDS, _made(visit))
    return visit.page("key_token.html", here="keys", key=key)


def _new_secret(key: KeyView) -> ApiKey:
    """Return a token for a key, or what its new secret access key is made of."""
    return make_api_key() if key.kind == "aws" else make_api_key(key_id=key.id)


def _made(visit: Visit) -> ApiKey:
    """Return the key that the form was made with. Raises Refusal (invalid)."""
    made = parse_api_key(visit.form.get("made", ""))
    if made is None:
        raise Refusal("invalid", "the form has lost the token that it was made with; reload the page and try again")
    return made


def _id(visit: Visit) -> str:
    found: str = visit.request.path_params["key"]
    if not (found.isascii() and found.isalnum()):
        raise keys.not_found("…")
    return found


def _position(text: str) -> tuple[datetime, str] | None:
    at, _, key_id = text.partition(" ")
    found = parse_instant(at)
    return None if found is None or not key_id.isalnum() else (found.astimezone(UTC), key_id)
