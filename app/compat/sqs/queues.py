"""Operations on queues."""

from app.compat.sqs.calls import Operation

OPERATIONS: dict[str, Operation] = {}
"""By name."""
