"""Delivery by webhook: one signed request per attempt, or for a group of them."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.delivery.kinds import Call, GroupedCall, Sending
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import headers_of, render, render_group
from app.delivery.webhook.transport import Request, Transport
from app.delivery.webhook.urls import UrlError, parse_url
from app.domain.answers import Answer, NoAnswer
from app.domain.errors import FieldError, Refusal, invalid_field
from app.domain.grouped import MAX_GROUP_ANSWER_BYTES
from app.domain.handlers import HIDDEN, HandlerDefinition


class Webhooks:
    """The delivery kind `webhook`. It owns the transport and closes it."""

    def __init__(self, egress: EgressPolicy, transport: Transport) -> None:
        self._egress = egress
        self._transport = transport

    def check(self, definition: HandlerDefinition) -> None:
        self.check_url(definition.url or "", "/url")

    def check_url(self, url: str, where: str) -> None:
        """Check a URL before it is saved; `where` is its pointer. Raises Refusal: invalid, egress_denied."""
        check_literal(self._egress, url, where)

    def send(
        self, call: Call | GroupedCall, now: datetime, ended: Callable[[Answer | NoAnswer | Exception], None]
    ) -> Sending:
        try:
            if isinstance(call, GroupedCall):
                request = _group_request(call, now)
            else:
                url, head, body = render(call, now)
                request = Request(url, head, body, call.tenant, call.timeout_seconds)
        except DeliveryError as error:
            return asyncio.get_running_loop().call_soon(ended, NoAnswer(error.outcome, error.detail))
        return self._transport.send(request, ended)

    def preview(self, call: Call | GroupedCall, now: datetime) -> dict[str, Any]:
        if isinstance(call, GroupedCall):
            one = call.calls[0]
            _, head, body = render_group(call, now)
        else:
            one = call
            _, head, body = render(call, now)
        hidden = {name.lower(): HIDDEN for name, _ in one.handler_headers}
        return {"url": one.url, "headers": headers_of(head) | hidden, "body": body.decode("utf-8", "replace")}

    async def aclose(self) -> None:
        await self._transport.aclose()


def check_literal(egress: EgressPolicy, url: str, where: str) -> None:
    """Check a URL without a lookup; `where` is its pointer. Raises Refusal: invalid, egress_denied."""
    try:
        refused = egress.refuse_literal(parse_url(url))
    except UrlError as error:
        raise invalid_field(where, str(error)) from None
    if refused is not None:
        raise Refusal("egress_denied", f"{where}: {refused}", [FieldError(where, refused)])


def _group_request(group: GroupedCall, now: datetime) -> Request:
    url, head, body = render_group(group, now)
    one = group.calls[0]
    return Request(url, head, body, one.tenant, one.timeout_seconds, MAX_GROUP_ANSWER_BYTES + 1)
