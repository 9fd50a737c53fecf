"""The client of Sluice, durable queues and schedules over HTTP. What this module exports is public, the rest is not."""

__all__: list[str] = []
