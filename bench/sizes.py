"""How much each measure does: NORMAL for figures, SMALLEST to see that everything still runs."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    """Pairs whose median counts."""
    few_rounds: int = 3
    """The same, of what has no target."""
    tasks: int = 20_000
    """Of one whole way: enqueued, delivered, settled."""
    fewer_tasks: int = 10_000
    """The same, where both sides are Sluice, which is slower than bare."""
    load_seconds: float = 2.0
    """Of one round of load."""
    sustained_seconds: float = 60.0
    find_seconds: float = 3.0
    """For finding the rate at which a service enqueues and delivers at once, before it counts."""
    warmed: bool = True
    """Whether the first of each pair is not counted."""
    delays: int = 500
    queues: int = 1_000
    replicas: int = 4
    idle_queues: int = 10_000
    delayed: int = 1_000_000
    idle_seconds: float = 20.0
    history: int = 1_000_000
    ready: int = 1_000_000
    xmin_seconds: float = 60.0
    soak_seconds: float = 60.0
    settled: int = 30_000
    schedules: tuple[int, ...] = (1, 1_000, 10_000)
    fire_rounds: int = 2
    keys: tuple[int, ...] = (1, 1_000, 100_000)
    blocked_keys: int = 10_000
    few_delays: int = 150
    rate_seconds: float = 60.0


NORMAL = Size()
SMALLEST = Size(
    rounds=1,
    few_rounds=1,
    tasks=1_000,
    fewer_tasks=1_000,
    load_seconds=0.5,
    sustained_seconds=1.0,
    find_seconds=0.5,
    warmed=False,
    delays=20,
    queues=50,
    replicas=2,
    idle_queues=100,
    delayed=5_000,
    idle_seconds=1.0,
    history=5_000,
    ready=5_000,
    xmin_seconds=1.0,
    soak_seconds=1.0,
    settled=2_000,
    schedules=(1, 100),
    fire_rounds=1,
    keys=(1, 10, 100),
    blocked_keys=100,
    few_delays=10,
    rate_seconds=1.0,
)


def size(iterations: int | None, long: bool, large: bool) -> Size:
    """`iterations` is how often each pair is measured; 1 makes everything else as small as possible too."""
    if iterations == 1:
        return SMALLEST
    chosen = NORMAL if iterations is None else replace(NORMAL, rounds=iterations, few_rounds=iterations)
    if long:
        chosen = replace(chosen, xmin_seconds=600.0, soak_seconds=600.0)
    return replace(chosen, history=10_000_000) if large else chosen
