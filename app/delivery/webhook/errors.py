"""The only error of this kind: a call without a complete answer."""

from app.domain.answers import NoAnswerOutcome


class DeliveryError(Exception):
    def __init__(self, outcome: NoAnswerOutcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome: NoAnswerOutcome = outcome
        self.detail = detail
