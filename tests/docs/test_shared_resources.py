"""The page of shared resources says what the code does, and names tests that exist."""

import re

import pytest

from app.api import bulk
from app.delivery.webhook import lookups
from app.domain.connections import DEFAULT_CONNECTIONS, share, split
from app.domain.places import LANE_MOST, TENANTS_KEPT
from app.domain.schedules.definitions import MAX_PREVIEW
from app.edge import admission, protocol
from app.runtime import compute, core, schema_pool
from app.runtime import schemas as checking
from app.service import backfills
from app.settings import Settings
from app.store import db, views, windows
from app.telemetry import logs
from tests.sluices import ROOT

PAGE = (ROOT / "docs" / "concepts" / "shared-resources.md").read_text()
MIB = 1024**2
USUAL = split(DEFAULT_CONNECTIONS)


def row(resource: str) -> str:
    return next(line for line in PAGE.split("\n") if line.startswith(f"| {resource}"))


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ("connections |", f"{admission.MAX_CONNECTIONS:,}"),
        ("bytes of requests in progress", f"{admission.MAX_BYTES // MIB} MiB | {admission.MAX_BYTES // 4 // MIB} MiB"),
        ("bytes of callers without", f"{admission.STRANGERS_BYTES // MIB} MiB"),
        ("time for a body", f"{protocol.BODY_SECONDS:g} s"),
        ("large requests", f"{bulk.PLACES} slots"),
        ("large requests", f"{bulk.TENANT_PLACES}, and {bulk.TENANT_WAITING} waiting for {bulk.PATIENCE_SECONDS:g} s"),
        ("lines in the log", f"{logs.LINES_A_MINUTE} per event"),
        ("reads:", f"{USUAL.reads} connections, {db.READ_SECONDS:g} s per statement | {share(USUAL.reads)} |"),
        ("reads:", f"waits for {db.TURN_SECONDS:g} s"),
        ("definitions:", f"{USUAL.definitions} connections | {share(USUAL.definitions)} |"),
        (
            "lookups for enqueues",
            f"{USUAL.lookups} of the {USUAL.work} that keep tasks moving | {share(USUAL.lookups)} |",
        ),
        ("cancels, retries", f"{USUAL.changes} of these {USUAL.work} | {share(USUAL.changes)} |"),
        ("claims of pull workers", f"{USUAL.pulls} of these {USUAL.work} | {USUAL.pulls - 1} |"),
        ("requests that wait", f"{core.MAX_WAITS:,} | {core.MAX_WAITS_OF_TENANT:,} |"),
        ("a page of a list", f"{windows.MAX_WINDOW:,} rows, {windows.LOOK_SECONDS * 1000:g} ms"),
        ("a page of a list", f"{views.PAGE_BYTES // MIB} MiB"),
        ("calls in progress", f"({Settings.model_fields['max_in_flight'].default:,})"),
        ("queues, handlers, schedules", f"({Settings.model_fields['max_definitions'].default:,})"),
        ("processes that check", f"| {checking.CHECK_PROCESSES} | 1, and {schema_pool.MAX_WAITING} requests"),
        ("processor time", f"{checking.TENANT_BURST_SECONDS:g} s at once, {checking.TENANT_RATE:g} s per second"),
        ("processor time", f"{checking.REQUEST_SECONDS:g} s per request"),
        ("compiled schemas", f"{checking.MAX_KEPT_BYTES // MIB} MiB"),
        ("name lookups", f"{lookups.PLACES} slots, {lookups.STALLED_PLACES} for names that have stalled"),
        ("name lookups", f"| {lookups.TENANT_PLACES}, and {lookups.TENANT_STALLED_PLACES} of those"),
        ("a backfill", f"{compute.THREADS} threads | 1, and {compute.MAX_WAITING} waiting"),
        ("a backfill", f"{backfills.MAX_BACKFILL:,}"),
        ("a preview", f"{MAX_PREVIEW:,}"),
    ],
)
def test_each_bound_is_what_the_code_has(resource: str, said: str) -> None:
    assert said in row(resource)


def test_the_parts_of_the_calls_are_those_of_the_code() -> None:
    assert (TENANTS_KEPT, LANE_MOST) == (8, 0.75), "seven eighths, and three quarters of those"


def test_every_test_that_the_page_names_is_there() -> None:
    directory = ""
    named = re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", PAGE)
    assert named
    for name in named:
        directory, _, file = name.rpartition("/") if "/" in name else (directory, "", name)
        assert (ROOT / directory / file).is_file(), name
