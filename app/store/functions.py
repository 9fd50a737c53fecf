"""The functions in the database: installed from sql/functions, with the settings that their statements are planned under.

Postgres plans by statistics, and those of a queue lie: a table that was empty a minute ago holds a million tasks now. Every
statement in these functions has an index that serves it at any size, so what would read a whole table is switched off.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from app.store.numbers import named
from app.store.session import SEARCH_PATH

FUNCTIONS = Path(__file__).parent / "sql" / "functions"
"""One function per file, frozen once released; migrations install them."""

PLANNED = ("enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off", "jit = off")
BY_INDEX_ORDER = (*PLANNED, "enable_bitmapscan = off")
"""For `order by .. limit` over many rows: a bitmap reads all that match before the first can be taken."""
NEVER_SORTED = (*BY_INDEX_ORDER, "enable_sort = off")
"""The same, where a sort of what one index gives would look cheaper than the order of another."""

SETTINGS: dict[str, tuple[str, ...] | None] = {
    "claim_v1": NEVER_SORTED,
    "promote_v1": NEVER_SORTED,
    "expire_v1": NEVER_SORTED,
    "reap_v1": NEVER_SORTED,
    "fold_v1": BY_INDEX_ORDER,
    "close_batch_v1": BY_INDEX_ORDER,
    "sweep_batch_v1": BY_INDEX_ORDER,
    "retry_batch_v1": BY_INDEX_ORDER,
    "redrive_v1": BY_INDEX_ORDER,
    "purge_v1": BY_INDEX_ORDER,
    # joins the arrays of a page with each other: by hash, or a thousand items cost a million comparisons
    "settle_followups_v1": ("enable_seqscan = off", "jit = off"),
    # one row by its primary key
    "extend_lease_v1": (),
    # only calls others, or makes tables
    "enqueue_atomic_v1": (),
    "ensure_partitions_v1": (),
    # not even a search path, which would keep it from being inlined: its body was looked up when it was made
    "uuid7_v1": None,
}
"""The exceptions; all others are PLANNED."""


def install(run: Callable[[str], object], names: Iterable[str]) -> None:
    """Create these functions and attach their settings, by way of `run`, which executes a statement."""
    for name in names:
        run(named((FUNCTIONS / f"{name}.sql").read_text()))
        settings = SETTINGS.get(name, PLANNED)
        if settings is not None:
            run(
                f"alter function sluice.{name} "
                + " ".join(f"set {setting}" for setting in (f"search_path = {SEARCH_PATH}", *settings))
            )
