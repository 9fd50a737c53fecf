"""All kinds of delivery of a replica, and which of them a call takes."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from app.delivery.kinds import Call, Delivery, GroupedCall, Sending, outcome_of
from app.delivery.redis_stream.target import RedisStreams
from app.delivery.sqs.target import SqsQueues
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.delivery.webhook.webhooks import Webhooks
from app.domain.answers import Answer, NoAnswer
from app.domain.handlers import HandlerDefinition

TARGET = "nothing was sent: the task has a target, which only a handler of kind webhook can call"
"""Its handler was of that kind when it was enqueued."""


class Deliveries:
    """The kinds in one event loop. They share the transport, which is closed with them."""

    def __init__(self, egress: EgressPolicy, transport: Transport) -> None:
        self.webhooks = Webhooks(egress, transport)
        self._bridges: dict[str, Delivery] = {
            "sqs": SqsQueues(egress, transport),
            "redis_stream": RedisStreams(egress),
        }

    def check(self, definition: HandlerDefinition) -> None:
        """Check where a complete definition leads. Raises Refusal: invalid, egress_denied, bridge_unavailable."""
        kind: Delivery = self.webhooks if definition.kind == "webhook" else self._bridges[definition.kind]
        kind.check(definition)

    def check_url(self, url: str, where: str) -> None:
        """Check a URL that a task names itself; `where` is its pointer. Raises Refusal: invalid, egress_denied."""
        self.webhooks.check_url(url, where)

    def send(
        self, call: Call | GroupedCall, now: datetime, ended: Callable[[Answer | NoAnswer | Exception], None]
    ) -> Sending:
        """Send the call once, as its kind does, and tell `ended` later, once, what came of it."""
        if isinstance(call, GroupedCall) or call.kind == "webhook":
            return self.webhooks.send(call, now, ended)
        if call.options.target is not None:
            return asyncio.get_running_loop().call_soon(ended, NoAnswer("failed", TARGET))
        return self._bridges[call.kind].send(call, now, ended)

    async def deliver(self, call: Call | GroupedCall, now: datetime) -> Answer | NoAnswer:
        """Send the call, and return what came of it. Cancelling it closes the connection."""
        answer: Answer | NoAnswer | Exception = await outcome_of(partial(self.send, call, now))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def preview(self, call: Call | GroupedCall, now: datetime) -> dict[str, Any]:
        """Return what `send` would send, for people: without secrets."""
        if isinstance(call, GroupedCall) or call.kind == "webhook":
            return self.webhooks.preview(call, now)
        return self._bridges[call.kind].preview(call, now)

    async def aclose(self) -> None:
        """Close all connections."""
        for kind in (*self._bridges.values(), self.webhooks):
            await kind.aclose()
