"""The API as the commands use it: a response, or a Failure that says what to do next."""

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from app.cli.failures import REFUSED, UNREACHABLE, USAGE, Failure
from app.domain.ids import parse_uuid
from sluice_client import ApiError, ConnectionFailed, NotSluice, SyncTransport

TIMEOUT_SECONDS = 30.0
PAGE = 200
TO_CORRECT = "correct SLUICE_URL or --url, or SLUICE_KEY or --key"
SEARCHED = 10_000
"""How many of the newest items are searched for an id of which the last part was given."""

NAMED = {"queue": "queues", "handler": "handlers", "schedule": "schedules", "batch": "batches"}
"""Filters that name another resource, and the path of that resource."""
NEXT = {
    "unauthenticated": "pass an API key with SLUICE_KEY or --key; `sluice keys create --tenant NAME` creates one",
    "forbidden": "use a key with a higher scope: `sluice keys create --tenant NAME --scope manage|operate`",
    "host_refused": "run the command on the same machine, with 127.0.0.1 or localhost as the address",
    "queue_not_found": "`sluice queues` lists the queues",
    "tenant_not_found": "`sluice keys list` shows the tenants that have keys",
    "task_not_found": "`sluice tasks list` lists the tasks",
    "task_ended": "`sluice tasks show ID` shows how it ended",
    "task_not_editable": "`sluice tasks show ID` shows its state",
    "limit_not_found": "`sluice limits list` lists the limits",
    "limit_in_use": "remove it from the queues, handlers and tasks that name it first",
    "key_full": "try again later, or raise max_depth in the queue's key",
    "queue_full": "try again later, or raise the queue's max_depth",
    "rate_limited": "try again later",
    "etag_mismatch": "see what has changed with `sluice plan`",
    "unavailable": "try again; `sluice status` shows what is wrong",
    "not_found": "the service may be older than this command, or an engine without an API; check SLUICE_URL",
    "method_not_allowed": "the service may be older than this command; compare `sluice version` with `sluice status`",
    "idempotency_mismatch": "use another --idempotency-key, or send the same request as the first time",
}


class Client:
    def __init__(self, url: str, key: str | None, as_json: bool = False) -> None:
        self._as_json = as_json
        try:
            self._transport = SyncTransport(url, key, timeout=TIMEOUT_SECONDS)
        except ValueError as error:
            raise self._fail({"code": "not_usable", "detail": str(error)}, TO_CORRECT, USAGE) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._transport.close()

    def get(self, path: str, *, wait_seconds: float = 0, **params: Any) -> Any:
        if wait_seconds:
            params["wait_seconds"] = wait_seconds
        given = {name: value for name, value in params.items() if value is not None}
        return self._ask("GET", path, params=given, timeout=TIMEOUT_SECONDS + wait_seconds)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("PUT", path, content=json.dumps(body).encode())

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def post(
        self,
        path: str,
        body: dict[str, Any] | bytes | None = None,
        *,
        lease_token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        headers = {} if lease_token is None else {"sluice-lease-token": lease_token}
        if body is None:
            return self._ask("POST", path, headers=headers, timeout=timeout_seconds)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask("POST", path, content=content, headers=headers, timeout=timeout_seconds)

    def pages(self, path: str, limit: int | None = None, **params: Any) -> Iterator[Any]:
        """The items of a list, page by page, until there are no more or `limit` is reached."""
        cursor = None
        while limit is None or limit > 0:
            page = self.get(path, limit=PAGE if limit is None else min(PAGE, limit), cursor=cursor, **params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return
            if limit is not None:
                limit -= len(page["items"])

    def whole_id(self, collection: str, given: str) -> str:
        """Return the id whose last part was given: that of the newest such item. Raises Failure if it is not among the newest."""
        if parse_uuid(given):
            return given
        for item in self.pages(f"/{collection}", SEARCHED):
            if item["id"].endswith(given.lower()):
                return str(item["id"])
        text = f"{given} is no id of the newest {SEARCHED:,} {collection}"
        raise self._fail({"code": "id_not_found", "detail": text}, "give the whole id", REFUSED)

    def check_named(self, filters: dict[str, Any]) -> None:
        """Called when nothing matched: raises Failure if a filter names a resource that does not exist."""
        for noun, collection in NAMED.items():
            if filters.get(noun) is not None:
                self.get(f"/{collection}/{filters[noun]}")

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        try:
            # nothing is repeated: who sits at a terminal wants to know now
            reply = self._transport.request(method, path, repeatable=False, **request)
        except ApiError as error:
            raise self._refused(error) from None
        except NotSluice as error:
            raise self._another(error.status) from None
        except ConnectionFailed as error:
            hint = "start Sluice with `sluice up`, or set its address with SLUICE_URL or --url"
            raise self._fail({"code": "unreachable", "detail": str(error)}, hint, UNREACHABLE) from None
        if reply.content and reply.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise self._another(reply.status_code)
        return reply.json() if reply.content else {}

    def _another(self, status: int) -> Failure:
        detail = f"{self._transport.url} responded {status} and is not Sluice"
        return self._fail({"code": "not_sluice", "detail": detail}, "check SLUICE_URL or --url", UNREACHABLE)

    def _refused(self, error: ApiError) -> Failure:
        hint = NEXT.get(error.code)
        if error.retry_after is not None and hint is not None:
            hint += f" (in {error.retry_after:.0f} s)"
        return self._fail(dict(error.problem or {}), hint, REFUSED)

    def _fail(self, problem: dict[str, Any], hint: str | None, code: int) -> Failure:
        if self._as_json:
            return Failure(json.dumps(problem), code, problem)
        lines = [f"{problem['code']}: {problem['detail']}"]
        lines += [f"  {error['pointer'] or '/'} {error['detail']}" for error in problem.get("errors", ())]
        return Failure("\n".join(lines + ([f"Next: {hint}."] if hint else [])), code, problem)
