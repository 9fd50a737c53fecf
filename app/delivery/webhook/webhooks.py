"""Delivery by webhook: one signed POST per attempt."""

from datetime import datetime
from typing import Any

from app.delivery.kinds import Call
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import build_headers
from app.delivery.webhook.transport import Transport
from app.delivery.webhook.urls import UrlError, check_url
from app.domain.answers import Answer, NoAnswer
from app.domain.errors import FieldError, Refusal, invalid_field
from app.domain.handlers import HIDDEN


class Webhooks:
    """The delivery kind `webhook`. It owns the transport and closes it."""

    def __init__(self, egress: EgressPolicy, transport: Transport) -> None:
        self._egress = egress
        self._transport = transport

    def check(self, url: str) -> None:
        try:
            refused = self._egress.refuse_literal(check_url(url))
        except UrlError as error:
            raise invalid_field("/url", str(error)) from None
        if refused is not None:
            raise Refusal("egress_denied", f"/url: {refused}", [FieldError("/url", refused)])

    async def deliver(self, call: Call, now: datetime) -> Answer | NoAnswer:
        headers = list(build_headers(call, now).items())
        try:
            return await self._transport.post(
                call.url, headers, call.payload, tenant=call.tenant, timeout_seconds=call.timeout_seconds
            )
        except DeliveryError as error:
            return NoAnswer(error.outcome, error.detail)

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        hidden = {header.lower(): HIDDEN for header in call.handler_headers}
        return {
            "url": call.url,
            "headers": build_headers(call, now) | hidden,
            "body": call.payload.decode("utf-8", "replace"),
        }

    async def aclose(self) -> None:
        await self._transport.aclose()
