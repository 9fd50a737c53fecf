"""Operations on messages."""

from app.compat.sqs.calls import Operation

OPERATIONS: dict[str, Operation] = {}
"""By name."""
