"""Sources: queues elsewhere from which tasks come.

Generated from openapi/openapi.json by `make openapi`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from sluice_client.api.blocking.group import Group
from sluice_client.api.blocking.pages import Pages
from sluice_client.api.parameters import UNSET, given, segment
from sluice_client.models import AwsCredentials, SourceOut, SourceOutPage, SourceTested


class Sources(Group):
    def list(self, *, limit: int = 200, cursor: str | None = UNSET) -> Pages[SourceOut, SourceOutPage]:
        """List sources, by name.

        - `limit`: Maximum number of items per page.
        - `cursor`: The `next_cursor` of the previous page, with the same filters.
        """
        return Pages(self._transport, "/sources", {"limit": limit, "cursor": cursor})

    def put(
        self,
        name: str,
        *,
        kind: Literal["redis_stream", "sqs"],
        queue: str,
        type: str | None = UNSET,
        headers: Mapping[str, str] = UNSET,
        tags: Sequence[str] = UNSET,
        priority: int = UNSET,
        body: Literal["base64", "json", "text"] = UNSET,
        on_invalid: Literal["dead", "wrap"] = UNSET,
        max_outstanding: int = UNSET,
        key_from: str | None = UNSET,
        description: str | None = UNSET,
        queue_url: str | None = UNSET,
        region: str | None = UNSET,
        endpoint_url: str | None = UNSET,
        credentials: AwsCredentials | None = UNSET,
        visibility_seconds: int | None = UNSET,
        url: str = UNSET,
        stream: str | None = UNSET,
        group: str | None = UNSET,
        start: Literal["$", "0"] | None = UNSET,
        field: str | None = UNSET,
        claim_idle_seconds: int | None = UNSET,
        if_match: str | None = UNSET,
        if_none_match: str | None = UNSET,
    ) -> SourceOut:
        """Create or replace a source. Absent fields get their defaults; secrets that are absent, a pause and the
        counts are kept.

        - `queue`: Where its messages become tasks.
        - `type`: Of its tasks.
        - `headers`: Of its tasks, beside those of the message, which go before headers of the same name.
        - `priority`: Default: `0`.
        - `body`: How a message's body becomes the payload: it is JSON; any text, as a JSON string; or bytes in
          base64. Default: `json`.
        - `on_invalid`: What becomes of a body that is not what `body` says: a payload `{"invalid": "<why>",
          "body": "<the text>"}` (`body_base64` if it is not text), or a dead task with its bytes. Default:
          `wrap`.
        - `max_outstanding`: While so many of its tasks have not ended, no messages are received. Default: `100`.
        - `key_from`: Where a task's `key` comes from: a JSON Pointer into the payload (`/customer/id`), or a
          header of the message. Without it: the MessageGroupId of SQS.
        - `queue_url`: sqs: required.
        - `region`: sqs: required.
        - `endpoint_url`: sqs: another server than the one that `queue_url` names.
        - `credentials`: sqs: write-only. Absent: those given before are kept; null: those that the replicas find
          in the usual AWS chain.
        - `visibility_seconds`: sqs: how long a message is hidden from others, and again while it is being
          enqueued. Default: 60.
        - `url`: redis_stream: `redis://` or `rediss://`. Write-only; absent: the one given before is kept.
        - `stream`: redis_stream: required.
        - `group`: redis_stream: required. The consumer group, made at first use.
        - `start`: redis_stream: where a new group begins: at the first entry (`0`, the default) or the next
          (`$`).
        - `field`: redis_stream: the field of an entry that is the body. Default: `body`.
        - `claim_idle_seconds`: redis_stream: entries that a consumer has held for so long are taken over from it.
          Default: 60.
        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `etag_mismatch` (412), `egress_denied` (422), `bridge_unavailable` (422).
        """
        document = given(
            {
                "kind": kind,
                "queue": queue,
                "type": type,
                "headers": headers,
                "tags": tags,
                "priority": priority,
                "body": body,
                "on_invalid": on_invalid,
                "max_outstanding": max_outstanding,
                "key_from": key_from,
                "description": description,
                "queue_url": queue_url,
                "region": region,
                "endpoint_url": endpoint_url,
                "credentials": credentials,
                "visibility_seconds": visibility_seconds,
                "url": url,
                "stream": stream,
                "group": group,
                "start": start,
                "field": field,
                "claim_idle_seconds": claim_idle_seconds,
            }
        )
        view: SourceOut = self._ask(
            "PUT",
            f"/sources/{segment(name)}",
            body=document,
            headers={"If-Match": if_match, "If-None-Match": if_none_match},
        )
        return view

    def get(self, name: str) -> SourceOut:
        """Read a source, and how it fares over all replicas.

        Refused with `source_not_found` (404).
        """
        view: SourceOut = self._ask("GET", f"/sources/{segment(name)}")
        return view

    def delete(self, name: str, *, if_match: str | None = UNSET, if_none_match: str | None = UNSET) -> None:
        """Delete a source. Its tasks stay, and so do messages at the source that are not tasks yet.

        - `if_match`: Replace or delete only if the current ETag is one of these (`*`: any).
        - `if_none_match`: `*`: create only, never replace.

        Refused with `source_not_found` (404), `etag_mismatch` (412).
        """
        self._ask("DELETE", f"/sources/{segment(name)}", headers={"If-Match": if_match, "If-None-Match": if_none_match})

    def pause(self, name: str) -> SourceOut:
        """Pause a source: nothing more is received.

        Refused with `source_not_found` (404).
        """
        view: SourceOut = self._ask("POST", f"/sources/{segment(name)}/pause")
        return view

    def resume(self, name: str) -> SourceOut:
        """Resume a source.

        Refused with `source_not_found` (404).
        """
        view: SourceOut = self._ask("POST", f"/sources/{segment(name)}/resume")
        return view

    def test(self, name: str) -> SourceTested:
        """Connect to a source and look at how much waits there, without taking a message. It counts nowhere.

        Refused with `source_not_found` (404), `bridge_unavailable` (422).
        """
        view: SourceTested = self._ask("POST", f"/sources/{segment(name)}/test")
        return view
