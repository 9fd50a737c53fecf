"""Schedules: what a definition may say, the times it names, and how it reads."""

from app.domain.schedule_bodies import parse_schedule
from app.domain.schedule_definitions import (
    CatchUp,
    CatchUpMode,
    Overlap,
    ScheduleDefinition,
    schedule_etag,
    schedule_to_dict,
)
from app.domain.schedule_readings import reading
from app.domain.schedule_times import grid_until, jitter_of, times_after

__all__ = [
    "CatchUp",
    "CatchUpMode",
    "Overlap",
    "ScheduleDefinition",
    "grid_until",
    "jitter_of",
    "parse_schedule",
    "reading",
    "schedule_etag",
    "schedule_to_dict",
    "times_after",
]
