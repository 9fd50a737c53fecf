"""Writes docs/reference from the code, and the index of decisions from the records: `python -m app.cli.reference [--check]`."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.api.audit import AUDITED
from app.cli.daylight_saving import daylight_saving_page
from app.domain.audit import BY_COMMAND, BY_SYSTEM
from app.edge.codes import CODES
from app.settings import CLIENT_VARIABLES, SECRETS, Settings
from app.telemetry.definitions import DEFINITIONS
from app.telemetry.events import CATALOGUE, COMMON

FOLDER = Path(__file__).parents[2] / "docs"
DECISIONS = FOLDER / "decisions"
_TITLE = re.compile(r"# \d{4}[.:]? +(.+)")
_SUPERSEDED = re.compile(r"\*\*Superseded by\*\* (\[\d{4}\]\([\w.-]+\))")


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Generated from `app/settings.py`. Each setting is an environment variable; an empty one counts as not set.",
        "`sluice config` shows the values in effect and where they come from. Sluice does not start with settings that conflict.",
        "",
        "| variable | default | values | meaning |",
        "|---|---|---|---|",
    ]
    for knob in Settings.model_construct().describe():
        variable = f"`{knob.variable}`" + (f" (or `{knob.variable}_FILE`)" if knob.name in SECRETS else "")
        default = f"`{knob.default}`" if knob.default and " " not in knob.default else knob.default
        cells = (variable, default, knob.bounds.replace("|", "\\|"), knob.why)
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "`SLUICE_…_FILE` names a file with the value, for orchestrators that mount secrets as files.",
        "",
        "The commands that talk to a running Sluice (`sluice status`, `queues`, `tasks`, `pause`, `resume`, `purge`, `redrive`,",
        "`limit`, `plan`, `apply`, `work`) read these instead. The options `--url` and `--key` override them:",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *(
            f"| `{name}` | {f'`{default}`' if default else ''} | {why} |"
            for name, (default, why) in CLIENT_VARIABLES.items()
        ),
        "",
        "They exit with 0 on success, 1 if Sluice rejected the request, 2 if the command line is invalid, 3 if nothing responds",
        "there (`work` keeps trying instead). `sluice plan --check` exits with 2 if something would change.",
        "",
        "`sluice up`, `migrate` and `keys` exit with 2 if a setting is invalid (including a wrong password, database or key)",
        "and with 3 if the database cannot be reached. `up` and `migrate` wait half a minute for it, `keys` does not.",
        "",
        "To export traces and metrics, set `OTEL_EXPORTER_OTLP_ENDPOINT`, as defined by OpenTelemetry.",
    ]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    lines = [
        "# Error codes",
        "",
        "Generated from `app/edge/codes.py`. Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`,",
        "`code`, `detail` and `errors: [{pointer, detail}]`. Codes never change their meaning. 429 and 503 carry `Retry-After`.",
        "",
        "| code | status | title | cause | what to do |",
        "|---|---|---|---|---|",
        *(
            f"| `{name}` | {code.status} | {code.title} | {code.cause} | {code.remedy} |"
            for name, code in CODES.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        "Generated from `app/telemetry/definitions.py`. `GET /metrics` responds in the Prometheus text format. It requires the",
        "scope `operate` unless `SLUICE_METRICS_OPEN` is set. Gauges of queues, handlers, limits, schedules, replicas, alarms",
        "and the database come from a snapshot of the whole fleet that every replica takes every ten seconds: use",
        "`max by (queue)` in charts. Counters and histograms are per replica: use `sum by (queue)`. `sluice_loop_lag_seconds`",
        "and `sluice_database_up` are about the replica itself. For alerts, see [monitoring](../guides/monitoring.md).",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
        *(f"| `{d.name}` | {d.kind} | {', '.join(f'`{n}`' for n in d.labels)} | {d.meaning} |" for d in DEFINITIONS),
    ]
    return "\n".join(lines) + "\n"


def events_page() -> str:
    lines = [
        "# Log events",
        "",
        "Generated from `app/telemetry/events.py`. The log is JSON, one line per event, on stderr. Besides the fields below,",
        "every line has `timestamp`, `level`, `event` and `logger`, and may have",
        ", ".join(f"`{name}`" for name in sorted(COMMON)) + ".",
        "Names and fields do not change once released. Tasks and attempts that succeed are not logged: metrics count them,",
        "and the attempts are on record. Payloads and secrets never appear.",
        "",
        "| event | level | meaning | fields |",
        "|---|---|---|---|",
        *(
            f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {event.meaning} |"
            f" {', '.join(f'`{name}`' for name in sorted(event.fields))} |"
            for event in sorted(CATALOGUE.values(), key=lambda event: event.name)
        ),
    ]
    return "\n".join(lines) + "\n"


def audit_page() -> str:
    operations: dict[tuple[str, str], list[str]] = {}
    for operation, verb in AUDITED.items():
        operations.setdefault((verb.noun, verb.verb), []).append(operation)
    for verb_name, noun in (*BY_SYSTEM, *BY_COMMAND):
        operations.setdefault((noun, verb_name), [])
    lines = [
        "# The audit",
        "",
        "Generated from `app/api/audit.py` and `app/domain/audit.py`: what `GET /audit` has rows of. The operations are those of",
        "`openapi/openapi.json`; a refused call of one has a row, too. What is not here changes nothing, or tasks and attempts",
        "record it. [Who changed what](../guides/audit.md) says what a row contains.",
        "",
        "| noun | verb | operation | by a command (`cli`) | by itself (`system`) |",
        "|---|---|---|---|---|",
        *(
            f"| `{noun}` | `{verb_name}` | {', '.join(f'`{one}`' for one in found)} |"
            f" {BY_COMMAND.get((verb_name, noun), '')} | {BY_SYSTEM.get((verb_name, noun), '')} |"
            for (noun, verb_name), found in sorted(operations.items())
        ),
    ]
    return "\n".join(lines) + "\n"


def decisions_page() -> str:
    lines = [
        "# Decisions",
        "",
        "Generated from the records by `make reference`. Each gives the context, the decision and its consequences at the time.",
        "Records are not rewritten: one that no longer holds names its successor.",
        "[CONTRIBUTING](../../CONTRIBUTING.md) says when to write one.",
        "",
        "| number | decision | status |",
        "|---|---|---|",
    ]
    for record in sorted(DECISIONS.glob("[0-9]*.md")):
        text = record.read_text()
        title = _TITLE.match(text)
        if title is None:
            raise ValueError(f"{record} does not begin with `# {record.name[:4]}. Title`")
        successor = _SUPERSEDED.search(text)
        status = "in force" if successor is None else f"superseded by {successor[1]}"
        lines.append(f"| [{record.name[:4]}]({record.name}) | {title[1]} | {status} |")
    return "\n".join(lines) + "\n"


def agent_tools_page() -> str:
    """Of the tools as agents see them. The library that offers them is an extra, and slow to import."""
    from app.cli.mcp_server import NEEDS, Server
    from app.cli.mcp_tools import Tools

    lines = [
        "# Tools for agents",
        "",
        "Generated from `app/cli/mcp_tools.py`: the tools of `sluice mcp` in the words that agents read.",
        "[The guide](../guides/agents.md) says how to add them to a client, and what `--allow` and the API key permit.",
    ]
    for tool in asyncio.run(Server(Tools("", None), "manage").list_tools()):
        needs = f"Needs `--allow {NEEDS[tool.name]}`. " if tool.name in NEEDS else ""
        lines += ["", f"## {tool.name}", "", f"{needs}{tool.description}"]
        if fields := tool.input_schema["properties"]:
            lines += ["", "| argument | values | default | meaning |", "|---|---|---|---|"]
            lines += [_argument(name, field, tool.input_schema) for name, field in fields.items()]
    return "\n".join(lines) + "\n"


def _argument(name: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    kind = next((one for one in field.get("anyOf", ()) if one["type"] != "null"), field)
    values = ", ".join(f"`{one}`" for one in kind["enum"]) if "enum" in kind else kind.get("type", "any JSON")
    if "minimum" in kind:
        values += f", at least {kind['minimum']}" + (f" and at most {kind['maximum']}" if "maximum" in kind else "")
    default = "" if field.get("default") is None else f"`{json.dumps(field['default'])}`"
    default = "required" if name in schema.get("required", ()) else default
    return f"| `{name}` | {values} | {default} | {field.get('description', '')} |"


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
    "reference/metrics.md": metrics_page,
    "reference/events.md": events_page,
    "reference/audit.md": audit_page,
    "reference/agent-tools.md": agent_tools_page,
    "reference/daylight-saving.md": daylight_saving_page,
    "decisions/README.md": decisions_page,
}


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if check and stale:
        print(f"docs differ from what they are generated from ({', '.join(stale)}): make reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
