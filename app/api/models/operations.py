"""Health and status on the wire."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class HealthOut(Struct):
    status: Literal["ok"]


class StatusOut(Struct):
    version: str
    replicas: list[dict[str, Any]]
    queues: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    database: dict[str, Any]
    alarms: Annotated[list[dict[str, Any]], Meta(description="Problems that need an operator, the most severe first.")]
