"""Where a Redis server is, and how it can fail. Without redis-py, which comes with an extra."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.urls import ParsedUrl, UrlError, parse_url
from app.domain.answers import NoAnswerOutcome
from app.domain.bridges import redis_url_problem
from app.domain.errors import FieldError, Refusal, invalid_field

PORT = 6379
MISSING = "redis_stream needs redis-py, which this replica does not have: install sluice-queue[redis]"


class RedisFailure(Exception):
    """A failure of a Redis server or of the way to it, in words for people and without secrets."""

    def __init__(
        self, message: str, outcome: NoAnswerOutcome = "failed", *, code: str = "", permanent: bool = False
    ) -> None:
        super().__init__(message)
        self.outcome: NoAnswerOutcome = outcome
        self.code = code
        """The first word of an error reply, such as NOGROUP."""
        self.permanent = permanent
        """Only a person can mend it."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    parsed: ParsedUrl
    """As if it were a URL of HTTP: what the egress policy judges, and where the connection leads."""
    tls: bool
    database: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_redis_url(url: str) -> RedisAddress:
    """Parse `redis://user:password@host:6379/0`. Raises UrlError, whose message has no secrets.

    The host is read by the parser of handlers' URLs, so that its spellings are judged in the same way.
    """
    problem = redis_url_problem(url)
    if problem is not None:
        raise UrlError(problem)
    parts = urlsplit(url)
    userinfo, _, place = parts.netloc.rpartition("@")
    name, _, password = userinfo.partition(":")
    tail = place.rpartition("]")[2]
    parsed = parse_url(f"http://{place}" if ":" in tail else f"http://{place}:{PORT}")
    return RedisAddress(
        parsed=parsed,
        tls=parts.scheme == "rediss",
        database=int(unquote(parts.path).strip("/") or 0),
        username=unquote(name) or None,
        password=unquote(password) or None,
    )


def check_redis(egress: EgressPolicy, url: str, where: str) -> None:
    """Check a URL before it is saved; `where` is its pointer. Raises Refusal: bridge_unavailable, invalid, egress_denied."""
    if find_spec("redis") is None:
        raise Refusal("bridge_unavailable", MISSING)
    try:
        refused = egress.refuse_literal(parse_redis_url(url).parsed)
    except UrlError as error:
        raise invalid_field(where, str(error)) from None
    if refused is not None:
        raise Refusal("egress_denied", f"{where}: {refused}", [FieldError(where, refused)])
