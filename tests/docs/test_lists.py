"""Where a page lists all there is of something, the list is what the code has: nothing is missing, and nothing is gone."""

import ast
import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import fields, replace

from app.api.models import schedules
from app.delivery.deliveries import Deliveries
from app.delivery.kinds import Call
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.signing import new_secret
from app.delivery.webhook.transport import Transport
from app.domain.connections import Limit, NoRoom, fit
from app.domain.limits import LimitUse
from app.domain.messages import Carried
from app.domain.options import OPTIONS, Options, PushedBack
from app.domain.schedules.cron import Dst
from app.domain.schedules.definitions import CatchUpMode, Overlap
from app.domain.schedules.firing import Cause
from app.domain.targets import TaskTarget
from app.domain.tasks import Outcome, Reason, State
from app.domain.waiting import WaitingFor
from app.runtime import alarms
from app.store.addresses import DROPPED, TAKEN
from tests.docs.pages import ROOT
from tests.handlers import Handler
from tests.sluices import Replica

DOCS = ROOT / "docs"
LIFECYCLE = DOCS / "concepts" / "lifecycle.md"
ARCHITECTURE = DOCS / "concepts" / "architecture.md"
SCHEDULES = DOCS / "guides" / "schedules.md"
CANCELLED = {Reason.REQUESTED, Reason.PURGED, Reason.SUPERSEDED}


def listed(page: Path, head: str, column: int = 0) -> set[str]:
    """The words in code in this column of the table that begins so; its cells may hold several."""
    _, found, table = page.read_text().partition(f"\n{head}")
    assert found, f"{page.name} has no table that begins {head!r}"
    rows = [line for line in table.partition("\n\n")[0].splitlines()[2:] if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[column + 1])}


def plain(page: Path, head: str) -> set[str]:
    """The cells of the first column, which are words as they stand."""
    _, found, table = page.read_text().partition(f"\n{head}")
    assert found, f"{page.name} has no table that begins {head!r}"
    return {line.split("|")[1].strip() for line in table.partition("\n\n")[0].splitlines()[2:] if line.startswith("|")}


@pytest.mark.parametrize(
    ("page", "head", "expected"),
    [
        (LIFECYCLE, "| state | meaning", set(State)),
        (LIFECYCLE, "| `reason` |", set(Reason)),
        (LIFECYCLE, "| `waiting_for` |", set(WaitingFor)),
        (DOCS / "reference" / "waiting.md", "| `code` |", set(WaitingFor)),
        (LIFECYCLE, "| `outcome` |", set(Outcome)),
        (DOCS / "guides" / "retries-and-dead-letters.md", "| `reason` |", set(Reason) - CANCELLED),
        (SCHEDULES, "| `overlap` |", set(get_args(Overlap))),
        (SCHEDULES, "| `mode` |", set(get_args(CatchUpMode))),
        (SCHEDULES, "| `outcome` |", set(get_args(schedules.Outcome))),
        (DOCS / "reference" / "daylight-saving.md", "| `dst` |", set(get_args(Dst))),
        (DOCS / "guides" / "postgres.md", "| parameter |", TAKEN | DROPPED.keys() | {"gssencmode", "ssl"}),
    ],
    ids=lambda value: getattr(value, "stem", value) if isinstance(value, str | Path) else "",
)
def test_a_table_of_words_has_all_of_them(page: Path, head: str, expected: set[str]) -> None:
    assert listed(page, head) - {"the default"} == {str(word) for word in expected}


def test_each_reason_is_said_of_the_state_it_belongs_to() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(dead|cancelled)` \|", LIFECYCLE.read_text(), re.MULTILINE)
    assert {reason for reason, state in rows if state == "cancelled"} == CANCELLED


GLOSSARY = (DOCS / "concepts" / "glossary.md").read_text()
VERBS = {
    "enqueue",
    "claim",
    "promote",
    "renew",
    "settle",
    "reap",
    "release",
    "cancel",
    "redrive",
    "purge",
    "pause",
    "resume",
    "fire",
}


def test_the_glossary_has_each_term_once_and_in_order() -> None:
    terms = [term.strip("`").lower() for term in re.findall(r"^\| ([^|]+) \|", GLOSSARY, re.MULTILINE)][1:]
    assert terms == sorted(set(terms))
    assert set(terms) >= VERBS


def test_the_classes_that_the_glossary_names_are_there() -> None:
    meanings = [line.split("|")[2] for line in GLOSSARY.splitlines() if line.startswith("| ")]
    named = {name for meaning in meanings for name in re.findall(r"`([A-Z][a-z]\w+)`", meaning)}
    classes = {
        name for path in (ROOT / "app").rglob("*.py") for name in re.findall(r"^class (\w+)", path.read_text(), re.M)
    }
    assert named and named <= classes


def test_the_packages_are_all_named() -> None:
    """In the table of the page on how Sluice is built, and with them those that its text names parts of."""
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")} | {"main.py"}
    assert listed(ARCHITECTURE, "| package |") == {f"app/{package}" for package in packages}
    for package, module in re.findall(r"`(\w+)\.(\w+)`", ARCHITECTURE.read_text()):
        if package in packages:
            assert list((ROOT / "app" / package).glob(f"{module}*")), f"{package}.{module}"


def test_the_causes_of_runs_are_all_named() -> None:
    (sentence,) = re.findall(r"^`cause` is ([^.]*)\.", SCHEDULES.read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(get_args(Cause))


def test_the_guide_to_connections_quotes_what_a_replica_without_room_says() -> None:
    quoted = "raise the server's max_connections (now 20, of which 3 are reserved)"
    with pytest.raises(NoRoom) as refused:
        fit(20, [Limit(17, 14, quoted)])
    assert f'"{refused.value}"' in " ".join((DOCS / "guides" / "database-connections.md").read_text().split())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "heads"),
    [("api", ["every replica"]), ("all", ["every replica", "an engine"])],
)
async def test_the_loops_of_a_replica_are_all_named(
    start_replica: Callable[..., Awaitable[Replica]], role: str, heads: list[str]
) -> None:
    """A loop is an asyncio task with a name: its own, or `loop NAME`."""
    others = asyncio.all_tasks()  # replicas of other tests may run in this event loop
    await start_replica(role=role)
    names = {task.get_name().removeprefix("loop ") for task in asyncio.all_tasks() - others}
    running = {name for name in names if not re.match(r"Task-\d|server$", name)}
    assert running == set().union(*(plain(ARCHITECTURE, f"| loop of {head} |") for head in heads))


@pytest.mark.ci
def test_the_alarms_are_all_named() -> None:
    """In whichever form they are given their codes."""
    codes = set()
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                pairs = {
                    key.value: value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                }
                if {"code", "message"} <= pairs.keys() and isinstance(pairs["code"], ast.Constant):
                    codes.add(pairs["code"].value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_queue_alarm":
                codes.add(ast.literal_eval(node.args[1]))
    assert codes == set(alarms.CODES)
    assert listed(DOCS / "runbooks" / "alarms.md", "| `code` |") == codes


FULL = Call(
    url="",
    tenant="default",
    task_id="0193a5b0-1111-7000-8000-000000000000",
    queue="mail",
    attempt=1,
    max_attempts=25,
    lease_token="5b4a1f0e-0000-4000-8000-000000000000",
    task_url="http://127.0.0.1/tasks/1",
    timeout_seconds=30,
    payload=b"1",
    secrets=(new_secret(),),
    options=Options(
        type="x",
        headers={"x-of-the-task": "x"},
        tags=("x",),
        correlation_id="x",
        retry={"max_attempts": 1},
        timeout_seconds=1,
        traceparent="x",
        tracestate="x",
        callbacks={"dead": {"queue": "x"}},
        callback_depth=1,
        cursor="x",
        schedule="x",
        scheduled_for=datetime.now(UTC),
        schedule_timezone="Europe/Berlin",
        target=TaskTarget(path="x"),
        content_type="application/json",
        binary=True,
        key="x",
        limits=(LimitUse("x"),),
        sealed=True,
        sealed_for="x",
        message=Carried(sender="x"),
        pushed_back=PushedBack(datetime.now(UTC), 1, 1),
    ),
    batch="x",
    traceparent="x",
    tracestate="x",
    handler_headers=(("x-of-the-handler", "x"),),
    targets="path",
)
"""All that a call may have."""


@pytest.mark.anyio
async def test_the_headers_of_a_delivery_are_all_named(handler: Handler) -> None:
    call = replace(FULL, url=handler.url)
    fields_of_webhooks = {field.name for field in fields(Call)} - {"address"}
    assert all(getattr(call, name) for name in fields_of_webhooks), "a new field, and maybe a new header"
    assert all(getattr(call.options, name) for name in OPTIONS), "a new option, and maybe a new header"
    egress = EgressPolicy(["127.0.0.1/32"])
    deliveries = Deliveries(egress, Transport(egress))
    await deliveries.deliver(call, datetime.now(UTC))
    await deliveries.aclose()
    (request,) = handler.requests
    sent = {name.lower() for name, _ in request.raw_headers} - {"x-of-the-task", "x-of-the-handler"}
    assert listed(DOCS / "guides" / "handlers.md", "| header |") == sent
