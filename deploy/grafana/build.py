"""Writes the dashboards beside it: `python deploy/grafana/build.py`. Import the JSON files in Grafana 10 or newer.

Gauges of the fleet are the same on every replica, so panels take their maximum; counters are added up.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24
RATE = "$__rate_interval"
OF = '{tenant=~"$tenant",queue=~"$queue"}'
PAST = 0.5, 0.95, 0.99
FAILED = "failed|timeout|unreachable|too_large|egress_denied|lease_expired"


@dataclass(frozen=True)
class Panel:
    title: str
    queries: tuple[tuple[str, str], ...]
    """Expressions, each with its legend."""
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    about: str = ""


def lines(title: str, *queries: tuple[str, str], unit: str = "short", width: int = 8, about: str = "") -> Panel:
    return Panel(title, queries, unit, "timeseries", width, about)


def number(title: str, expression: str, unit: str = "short", about: str = "") -> Panel:
    return Panel(title, ((expression, ""),), unit, "stat", 4, about)


def table(title: str, expression: str, legend: str, about: str = "") -> Panel:
    return Panel(title, ((expression, legend),), "short", "bargauge", 8, about)


def quantiles(metric: str, of: str, by: str = "") -> tuple[tuple[str, str], ...]:
    grouped = f"le,{by}" if by else "le"
    return tuple(
        (f"histogram_quantile({q}, sum by ({grouped}) (rate({metric}_bucket{of}[{RATE}])))", f"p{q * 100:g}")
        for q in PAST
    )


OVERVIEW = (
    number("Ready tasks", 'sum(max by (tenant, queue) (sluice_tasks{state="ready"}))'),
    number("Running tasks", 'sum(max by (tenant, queue) (sluice_tasks{state="running"}))'),
    number("Ended per second", f"sum(rate(sluice_tasks_ended_total[{RATE}]))", "ops"),
    number("Alarms", "sum(max by (code) (sluice_alarm))", about="What GET /status shows, by code."),
    number("Replicas", "sum(max by (role) (sluice_replicas))", about="Alive and not draining."),
    number("Database up", "min(sluice_database_up)", "bool_yes_no"),
    lines(
        "Tasks per second",
        (f"sum(rate(sluice_tasks_enqueued_total[{RATE}]))", "enqueued"),
        (f"sum(rate(sluice_task_wait_seconds_count[{RATE}]))", "started"),
        (f"sum by (state) (rate(sluice_tasks_ended_total[{RATE}]))", "{{state}}"),
        unit="ops",
    ),
    lines(
        "Backlog",
        ('topk(10, max by (tenant, queue) (sluice_tasks{state="ready"}))', "{{tenant}} {{queue}}"),
        about="Ready tasks of the ten longest queues.",
    ),
    lines(
        "Oldest ready task",
        ("topk(10, max by (tenant, queue) (sluice_oldest_ready_age_seconds))", "{{tenant}} {{queue}}"),
        unit="s",
    ),
    lines("Wait from run_at to start", *quantiles("sluice_task_wait_seconds", ""), unit="s"),
    lines("Duration of attempts", *quantiles("sluice_attempt_seconds", ""), unit="s"),
    lines(
        "Share of attempts that fail",
        (
            f'sum by (tenant, queue) (rate(sluice_attempts_total{{outcome=~"{FAILED}"}}[{RATE}]))'
            f" / sum by (tenant, queue) (rate(sluice_attempts_total[{RATE}]))",
            "{{tenant}} {{queue}}",
        ),
        unit="percentunit",
    ),
    table("Alarms by code", "max by (code) (sluice_alarm)", "{{code}}"),
    table("Paused queues", "max by (tenant, queue) (sluice_queue_paused)", "{{tenant}} {{queue}}"),
    table(
        "Overdue schedules", "max by (tenant, schedule) (sluice_schedule_overdue_seconds)", "{{tenant}} {{schedule}}"
    ),
)
QUEUE = (
    lines("Tasks by state", (f"max by (state) (sluice_tasks{OF})", "{{state}}")),
    lines(
        "Tasks per second",
        (f"sum(rate(sluice_tasks_enqueued_total{OF}[{RATE}]))", "enqueued"),
        (f"sum by (state, reason) (rate(sluice_tasks_ended_total{OF}[{RATE}]))", "{{state}} {{reason}}"),
        unit="ops",
    ),
    lines("Oldest ready task", (f"max by (queue) (sluice_oldest_ready_age_seconds{OF})", "{{queue}}"), unit="s"),
    lines(
        "Attempts per second by outcome",
        (f"sum by (outcome) (rate(sluice_attempts_total{OF}[{RATE}]))", "{{outcome}}"),
        unit="ops",
    ),
    lines("Wait from run_at to start", *quantiles("sluice_task_wait_seconds", OF), unit="s"),
    lines("Duration of attempts", *quantiles("sluice_attempt_seconds", OF), unit="s"),
    lines(
        "Depth and its limit",
        (
            'sum by (queue) (max by (queue, state) (sluice_tasks{tenant=~"$tenant",queue=~"$queue",state=~"scheduled|ready"}))',
            "{{queue}}",
        ),
        (f"max by (queue) (sluice_queue_max_depth{OF})", "{{queue}} max"),
    ),
    lines(
        "Places and their limit",
        ('max by (name) (sluice_limit_used{level="queue",tenant=~"$tenant",name=~"$queue"})', "{{name}}"),
        ('max by (name) (sluice_limit{level="queue",tenant=~"$tenant",name=~"$queue"})', "{{name}} max"),
    ),
    table("Paused", f"max by (queue) (sluice_queue_paused{OF})", "{{queue}}"),
)
FLEET = (
    number("Replicas: all", 'max(sluice_replicas{role="all"})'),
    number("Replicas: api", 'max(sluice_replicas{role="api"})'),
    number("Replicas: engine", 'max(sluice_replicas{role="engine"})'),
    number(
        "Connections used", "max(sluice_database_connections) / max(sluice_database_connections_max)", "percentunit"
    ),
    number("Oldest transaction", "max(sluice_database_oldest_xmin_seconds)", "s"),
    number("Versions", "count(count by (version) (sluice_build_info))", about="More than one during an upgrade."),
    lines(
        "Requests per second",
        (f"sum by (route, status) (rate(sluice_http_request_seconds_count[{RATE}]))", "{{route}} {{status}}"),
        unit="reqps",
    ),
    lines(
        "Enqueue latency",
        *quantiles("sluice_http_request_seconds", '{method="POST",route="/queues/{name}/tasks"}'),
        unit="s",
    ),
    lines(
        "Loop lag",
        ("sluice_loop_lag_seconds", "{{instance}}"),
        unit="s",
        about="The worst of the last 30 to 60 seconds.",
    ),
    lines(
        "Leases lost and reaped",
        (f"sum(rate(sluice_leases_lost_total[{RATE}]))", "lost"),
        (f"sum(rate(sluice_leases_reaped_total[{RATE}]))", "reaped"),
        (f"sum(rate(sluice_flows_rescued_total[{RATE}]))", "flows rescued"),
        unit="ops",
    ),
    lines(
        "Tasks per grouped statement",
        (
            f"sum by (statement) (rate(sluice_group_size_sum[{RATE}]))"
            f" / sum by (statement) (rate(sluice_group_size_count[{RATE}]))",
            "{{statement}}",
        ),
    ),
    lines(
        "Database connections",
        ("max(sluice_database_connections)", "used"),
        ("max(sluice_database_connections_max)", "max"),
    ),
    lines("Handlers enabled", ("max by (tenant, handler) (sluice_handler_enabled)", "{{tenant}} {{handler}}")),
    lines(
        "Breakers",
        ("max by (tenant, handler) (sluice_handler_breaker)", "{{tenant}} {{handler}}"),
        ("sum(max by (tenant, handler) (sluice_breaker_open))", "not closed"),
        about="0 closed, 1 half-open, 2 open.",
    ),
    lines(
        "Use of limits",
        (
            "max by (tenant, level, name) (sluice_limit_used) / max by (tenant, level, name) (sluice_limit)",
            "{{level}} {{tenant}} {{name}}",
        ),
        unit="percentunit",
    ),
    lines(
        "Named limits",
        (f"sum by (tenant, limit) (rate(sluice_limit_admitted_total[{RATE}]))", "{{limit}} admitted per second"),
        ("max by (tenant, limit) (sluice_limit_waiting_keys)", "{{limit}} waiting keys"),
    ),
    lines(
        "Times missed by schedules",
        ("max by (tenant, schedule) (sluice_schedule_missed_total)", "{{tenant}} {{schedule}}"),
    ),
    lines(
        "Messages of sources per second",
        (
            f"sum by (tenant, source, outcome) (rate(sluice_source_messages_total[{RATE}]))",
            "{{tenant}} {{source}} {{outcome}}",
        ),
        unit="ops",
    ),
    lines(
        "Messages that wait at sources",
        ("max by (tenant, source) (sluice_source_lag)", "{{tenant}} {{source}}"),
    ),
    lines(
        "Sources that fall behind or fail",
        ("max by (tenant, source) (sluice_source_oldest_age_seconds)", "{{tenant}} {{source}} oldest"),
        ("max by (tenant, source) (sluice_source_failing_seconds)", "{{tenant}} {{source}} failing"),
        unit="s",
    ),
)


def panel(number: int, shown: Panel, x: int, y: int) -> dict[str, Any]:
    height = 4 if shown.kind == "stat" else 8
    return {
        "id": number,
        "title": shown.title,
        "description": shown.about,
        "type": shown.kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": shown.width, "h": height},
        "fieldConfig": {"defaults": {"unit": shown.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if shown.kind == "timeseries" else {},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(shown.queries)
        ],
    }


def laid_out(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Place panels in rows, from the left."""
    found, x, y, height = [], 0, 0, 0
    for number, shown in enumerate(panels, 1):
        if x + shown.width > WIDTH:
            x, y = 0, y + height
        found.append(panel(number, shown, x, y))
        x, height = x + shown.width, found[-1]["gridPos"]["h"]
    return found


def variable(name: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(uid: str, title: str, panels: tuple[Panel, ...], *variables: dict[str, Any]) -> dict[str, Any]:
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["sluice"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["sluice"], "title": "Sluice", "asDropdown": True, "keepTime": True}],
        "templating": {"list": [source, *variables]},
        "panels": laid_out(panels),
    }


def dashboards() -> dict[str, dict[str, Any]]:
    """Return them by the name of their file."""
    of_queue = variable("tenant", "sluice_tasks"), variable("queue", 'sluice_tasks{tenant=~"$tenant"}')
    return {
        "overview.json": dashboard("sluice-overview", "Sluice: overview", OVERVIEW),
        "queue.json": dashboard("sluice-queue", "Sluice: a queue", QUEUE, *of_queue),
        "fleet.json": dashboard("sluice-fleet", "Sluice: replicas, handlers, limits, database", FLEET),
    }


def text(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    for name, found in dashboards().items():
        (FOLDER / name).write_text(text(found))
