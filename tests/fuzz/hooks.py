"""What schemathesis is told of this Sluice (SCHEMATHESIS_HOOKS): names and ids that exist, and that time is short.

Left alone it would ask for queues and tasks that were never made, and see little but 404.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from typing import Any, cast

import schemathesis
from schemathesis import Case, HookContext

from app.domain.names import NAME_PATTERN

KNOWN: dict[str, list[str]] = json.loads(os.environ.get("SLUICE_TEST_KNOWN", "{}"))
"""By the name of a parameter: values that lead somewhere."""
LONGEST_WAIT_SECONDS = 0.05


def wanders(text: str) -> bool:
    """A quarter of what is generated stays as it is."""
    return zlib.crc32(text.encode()) % 4 == 0


def _one_of(known: list[str], text: str) -> str:
    return known[zlib.crc32(text.encode()[::-1]) % len(known)]


@schemathesis.hook
def map_path_parameters(_context: HookContext, given: Mapping[str, Any] | None) -> Any:
    """Only what is well-formed is replaced: hostile names and ids are to arrive."""
    if given is None:
        return None
    mapped = dict(given)
    name, task_id = given.get("name"), given.get("task_id")
    if isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) and not wanders(name):
        mapped["name"] = _one_of(KNOWN["name"], name)
    if isinstance(task_id, str) and not wanders(task_id):
        mapped["task_id"] = _one_of(KNOWN["task_id"], task_id)
    return mapped


@schemathesis.hook
def map_headers(_context: HookContext, given: Mapping[str, Any] | None) -> Any:
    if given is None or "Sluice-Lease-Token" not in given or wanders(str(given["Sluice-Lease-Token"])):
        return given
    return {**given, "Sluice-Lease-Token": _one_of(KNOWN["token"], str(given["Sluice-Lease-Token"]))}


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """A wait that would be accepted is cut; one out of bounds is left, to be refused. Nothing known is pruned away."""
    if isinstance(case.body, dict) and case.body.get("prune") is True:
        case.body["prune"] = False
    for part in (case.query, case.body):
        wait = part.get("wait_seconds") if isinstance(part, dict) else None
        try:
            seconds = float(wait)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if LONGEST_WAIT_SECONDS < seconds <= 60 and not isinstance(wait, bool):
            cast(dict[str, Any], part)["wait_seconds"] = LONGEST_WAIT_SECONDS
