"""Health and status on the wire."""

from typing import Any, Literal

from pydantic import Field

from app.edge.replies import ResponseBody


class HealthOut(ResponseBody):
    status: Literal["ok"]


class StatusOut(ResponseBody):
    version: str
    replicas: list[dict[str, Any]]
    queues: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    database: dict[str, Any]
    alarms: list[dict[str, Any]] = Field(description="Problems that need an operator, the most severe first.")
