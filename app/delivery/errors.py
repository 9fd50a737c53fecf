"""The one error of this room: a call that brought no full answer."""

from app.domain.answers import NoAnswerOutcome


class DeliveryError(Exception):
    """`permanent` says that the same call is known to fail again: its URL or its headers cannot be sent."""

    def __init__(self, outcome: NoAnswerOutcome, detail: str, *, permanent: bool = False) -> None:
        super().__init__(detail)
        self.outcome: NoAnswerOutcome = outcome
        self.detail = detail
        self.permanent = permanent
