"""Delivery by webhook: one signed POST per attempt."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.delivery.kinds import Call, Sending
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import headers_of, render
from app.delivery.webhook.transport import Request, Transport
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

    def send(self, call: Call, now: datetime, ended: Callable[[Answer | NoAnswer | Exception], None]) -> Sending:
        try:
            url, head = render(call, now)
        except DeliveryError as error:
            return asyncio.get_running_loop().call_soon(ended, NoAnswer(error.outcome, error.detail))
        return self._transport.send(Request(url, head, call.payload, call.tenant, call.timeout_seconds), ended)

    async def deliver(self, call: Call, now: datetime) -> Answer | NoAnswer:
        ended: asyncio.Future[Answer | NoAnswer | Exception] = asyncio.get_running_loop().create_future()
        sending = self.send(call, now, ended.set_result)
        try:
            answer = await asyncio.shield(ended)
        finally:
            if not ended.done():
                sending.cancel()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        hidden = {name.lower(): HIDDEN for name, _ in call.handler_headers}
        return {
            "url": call.url,
            "headers": headers_of(render(call, now)[1]) | hidden,
            "body": call.payload.decode("utf-8", "replace"),
        }

    async def aclose(self) -> None:
        await self._transport.aclose()
