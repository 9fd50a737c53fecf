"""After tasks have ended: count their callbacks, wake whoever claims them, and say which were left out."""

from msgspec.structs import asdict

from app.runtime.counting import StatsBuffer
from app.runtime.signals import Signals
from app.store.callbacks import Called, Told
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


def teller(stats: StatsBuffer, signals: Signals) -> Told:
    """Return the function that statements which end tasks tell of their callbacks."""

    def told(called: Called) -> None:
        for queue_id, count in called.queues.items():
            stats.enqueued(queue_id, count)
            signals.lane_ready(queue_id, 0)
        for left_out in called.left_out:
            events.emit(log, events.CALLBACK_LEFT_OUT, **asdict(left_out))

    return told
