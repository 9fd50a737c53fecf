"""Handlers: where tasks are delivered.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sluice_client.api.blocking.group import Group
from sluice_client.api.blocking.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import (
    Adaptive,
    AwsCredentials,
    Breaker,
    Grouping,
    HandlerHealthOut,
    HandlerOut,
    HandlerOutPage,
    HandlerSaved,
    LimitUse,
    Rate,
    SecretOut,
    TestOut,
)


class Handlers(Group):
    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[HandlerOut, HandlerOutPage]:
        """List handlers, by name.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/handlers", {"limit": limit, "cursor": cursor})

    def put(
        self,
        name: str,
        *,
        url: str = UNSET,
        timeout_seconds: float = UNSET,
        headers: Mapping[str, str] = UNSET,
        max_concurrency: int | None = UNSET,
        fatal_statuses: Sequence[int] = UNSET,
        description: str | None = UNSET,
        group: Grouping | None = UNSET,
        targets: Literal["any", "own", "path"] = UNSET,
        breaker: Breaker | None = UNSET,
        adaptive: Adaptive | None = UNSET,
        park_on_retry_after: Literal["handler", "key", "task"] = UNSET,
        rate: Rate | None = UNSET,
        limits: Sequence[str | LimitUse] = UNSET,
        kind: Literal["redis_stream", "sqs", "webhook"] = UNSET,
        queue_url: str | None = UNSET,
        region: str | None = UNSET,
        endpoint_url: str | None = UNSET,
        credentials: AwsCredentials | None = UNSET,
        group_id_from: Literal["key"] | None = UNSET,
        stream: str | None = UNSET,
        maxlen: int | None = UNSET,
        secret: str | None = UNSET,
        if_match: str | None = UNSET,
        if_none_match: str | None = UNSET,
    ) -> HandlerSaved:
        """Create or replace a handler. Absent fields get their defaults; the secret and the enabled state are kept.

        - `url`: webhook: required; http or https, without user name, password or fragment. redis_stream:
          `redis://` or `rediss://`; write-only, and the one given before is kept if it is absent.
        - `timeout_seconds`: Default: `30.0`.
        - `headers`: Sent with every delivery. Write-only.
        - `group`: Deliver ready tasks together; null: each in a request of its own.
        - `targets`: What a task's `target` may name: nothing (`own`), a path below the URL (`path`), or any URL
          (`any`). Default: `own`.
        - `breaker`: null: a failing service is called all the same.
        - `adaptive`: null: max_concurrency is the limit. Otherwise it is required, and the most.
        - `park_on_retry_after`: What waits when an answer has a `Retry-After`: the task, all of its key, or the
          whole handler. Default: `task`.
        - `rate`: How many of its tasks start in a while.
        - `limits`: What all tasks take: `"name"`, or an object where a key or cost is given.
        - `kind`: How tasks are delivered; each kind has fields of its own. Default: `webhook`.
        - `queue_url`: sqs: required.
        - `region`: sqs: required.
        - `endpoint_url`: sqs: another server than the one that `queue_url` names.
        - `credentials`: sqs: write-only. Absent: those given before are kept; null: those that the replicas find
          in the usual AWS chain, for which the key needs scope operate.
        - `group_id_from`: sqs: where a MessageGroupId comes from: the task's `key`.
        - `stream`: redis_stream: required.
        - `maxlen`: redis_stream: about how many entries the stream keeps; null: all.
        - `secret`: The signing secret, whsec_ and the base64 of 24 to 64 bytes; generated if absent.
        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `etag_mismatch` (412), `egress_denied` (422), `bridge_unavailable` (422).
        """
        body = given(
            {
                "url": url,
                "timeout_seconds": timeout_seconds,
                "headers": headers,
                "max_concurrency": max_concurrency,
                "fatal_statuses": fatal_statuses,
                "description": description,
                "group": group,
                "targets": targets,
                "breaker": breaker,
                "adaptive": adaptive,
                "park_on_retry_after": park_on_retry_after,
                "rate": rate,
                "limits": limits,
                "kind": kind,
                "queue_url": queue_url,
                "region": region,
                "endpoint_url": endpoint_url,
                "credentials": credentials,
                "group_id_from": group_id_from,
                "stream": stream,
                "maxlen": maxlen,
                "secret": secret,
            }
        )
        view: HandlerSaved = self._ask(
            "PUT",
            f"/handlers/{segment(name)}",
            body=body,
            headers={"If-Match": if_match, "If-None-Match": if_none_match},
        )
        return view

    def get(self, name: str) -> HandlerOut:
        """Read a handler.

        Refused with `handler_not_found` (404).
        """
        view: HandlerOut = self._ask("GET", f"/handlers/{segment(name)}")
        return view

    def delete(self, name: str, *, if_match: str | None = UNSET, if_none_match: str | None = UNSET) -> None:
        """Delete a handler that is not used by any queue, schedule or unfinished task.

        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `handler_not_found` (404), `handler_in_use` (409), `etag_mismatch` (412).
        """
        self._ask(
            "DELETE", f"/handlers/{segment(name)}", headers={"If-Match": if_match, "If-None-Match": if_none_match}
        )

    def set_breaker(
        self, name: str, *, open: Literal[True] | None = UNSET, close: Literal[True] | None = UNSET
    ) -> HandlerHealthOut:
        """Open a handler's breaker until it is closed by hand, or close it: its tasks are delivered again, few at
        first.

        - `open`: Nothing is delivered until the breaker is closed by hand.
        - `close`: Tasks are delivered again, few at first.

        Refused with `handler_not_found` (404).
        """
        body = given({"open": open, "close": close})
        view: HandlerHealthOut = self._ask("POST", f"/handlers/{segment(name)}/breaker", body=body)
        return view

    def disable(self, name: str) -> HandlerOut:
        """Disable a handler: its tasks are accepted but not delivered.

        Refused with `handler_not_found` (404).
        """
        view: HandlerOut = self._ask("POST", f"/handlers/{segment(name)}/disable")
        return view

    def enable(self, name: str) -> HandlerOut:
        """Enable a handler: its tasks are delivered again.

        Refused with `handler_not_found` (404).
        """
        view: HandlerOut = self._ask("POST", f"/handlers/{segment(name)}/enable")
        return view

    def health(self, name: str) -> HandlerHealthOut:
        """Show how a handler fares: its breaker, the limit now, and the calls of the window, over all replicas.

        Refused with `handler_not_found` (404).
        """
        view: HandlerHealthOut = self._ask("GET", f"/handlers/{segment(name)}/health")
        return view

    def rotate_secret(self, name: str, *, overlap_seconds: float = UNSET) -> SecretOut:
        """Sign deliveries with a new secret, and for a while with the old one too.

        - `overlap_seconds`: How long deliveries are also signed with the old secret. Default: `86400.0`.

        Refused with `handler_not_found` (404).
        """
        body = given({"overlap_seconds": overlap_seconds})
        view: SecretOut = self._ask("POST", f"/handlers/{segment(name)}/rotate-secret", body=body or None)
        return view

    def test(self, name: str, *, payload: Any = UNSET) -> TestOut:
        """Send one signed test request now; return what was sent and received. It does not count in any statistics.

        - `payload`: Sent byte for byte. Without it: the first of the `examples` in the schema of a queue that
          delivers here, else `{"test": true}`.

        Refused with `handler_not_found` (404).
        """
        body = given({"payload": payload})
        view: TestOut = self._ask("POST", f"/handlers/{segment(name)}/test", body=body or None)
        return view
