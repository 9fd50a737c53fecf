"""What an operation gets: who calls, and how queues are named on this wire."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from app.compat.sqs.errors import queue_does_not_exist
from app.domain.callers import Caller
from app.domain.names import is_name
from app.edge.strict import AuditedVerb
from app.runtime.core import Core

FIRST_ACCOUNT = 123_456_789_011
"""Plus the id of a tenant: its account id. So the first tenant, `default`, has the account of most examples, 123456789012."""
DEFAULT_REGION = "us-east-1"
"""Of requests without a signature, which are served only while authentication is off."""


def account_of(tenant_id: int) -> str:
    return f"{FIRST_ACCOUNT + tenant_id:012}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, authenticated."""

    core: Core
    caller: Caller
    region: str
    """Of the credential that signed it. Queues are the same in every region."""
    base_url: str
    """Scheme and authority under which the client reached this wire; queue URLs begin with it."""
    gone: Callable[[], Awaitable[object]]
    """Returns when the client has disconnected."""
    trace: tuple[str, str | None] | None = None
    """The headers traceparent and tracestate, unchanged."""
    account: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "account", account_of(self.caller.tenant_id))

    def queue_url(self, name: str) -> str:
        return f"{self.base_url}/{self.account}/{name}"

    def queue_name(self, url: str) -> str:
        """Return the name of the queue with this URL. Only the path counts: clients reach this wire under several host names. Some
        send the bare name instead.

        Raises SqsError (QueueDoesNotExist), also for the queue of another account and for what is no such URL.
        """
        if is_name(url):
            return url
        path = url.partition("://")[2] or url
        parts = path.rstrip("/").split("/")
        if len(parts) < 3 or parts[-2] != self.account or not is_name(parts[-1]):
            raise queue_does_not_exist()
        return parts[-1]

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{name}"

    def name_in_arn(self, arn: str) -> str | None:
        """Return the name of the queue of this account with this ARN; None if it is no such ARN. The region does not count."""
        parts = arn.split(":")
        ours = len(parts) == 6 and parts[:3] == ["arn", "aws", "sqs"] and parts[4] == self.account
        return parts[5] if ours and parts[5] else None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: the struct of its input, the scope that it needs, and what carries it out."""

    input: type[Struct]
    scope: str
    run: Callable[[Call, Any], Awaitable[dict[str, Any] | None]]
    """Takes the input. Returns the members of the output as JSON values; None for an operation without output.
    Raises SqsError, Refusal."""
    audited: AuditedVerb | None = None
    """The verb behind an operation that changes something, which records in the audit what is refused before it is reached."""
