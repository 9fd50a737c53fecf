"""Database functions: installed from sql/functions, with the planner settings of their statements.

Postgres plans by statistics, and a queue's are misleading: a table that was empty a minute ago may hold a million tasks now. Every
statement in these functions has an index that serves it at any size, so plans that read a whole table are disabled.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from app.store.numbers import named
from app.store.session import SEARCH_PATH

FUNCTIONS = Path(__file__).parent / "sql" / "functions"
"""One function per file, frozen once released; migrations install them."""

PLANNED = ("enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off", "jit = off")
PLANNED_ONCE = (*PLANNED, "plan_cache_mode = force_generic_plan")
BY_INDEX_ORDER = (*PLANNED, "enable_bitmapscan = off")
"""For `order by .. limit` over many rows: a bitmap scan reads all matching rows before it returns the first."""
NEVER_SORTED = (*BY_INDEX_ORDER, "enable_sort = off")
"""The same, where sorting the result of one index would look cheaper than using the order of another."""

CALLED = (*PLANNED_ONCE, "extra_float_digits = 1", "standard_conforming_strings = on", "TimeZone = utc")
"""For what runs in sessions of others: what depends on how such a session is set."""

WITHIN_ENQUEUE = (
    "refuse_v1",
    "caller_v1",
    "read_members_v1",
    "read_text_v1",
    "read_number_v1",
    "read_instant_v1",
    "show_instant_v1",
    "read_name_v1",
    "read_key_v1",
    "read_headers_v1",
    "read_tags_v1",
    "read_retry_v1",
    "read_target_v1",
    "read_uses_v1",
    "read_callbacks_v1",
    "read_content_type_v1",
    "check_size_v1",
    "read_payload_v1",
    "read_base64_v1",
    "read_task_v1",
    "check_target_v1",
    "check_limits_v1",
    "check_depth_v1",
    "see_latest_v1",
    "hold_queue_v1",
    "hold_limits_v1",
    "own_handler_v1",
    "check_callbacks_v1",
    "insert_task_v1",
    "enqueue_here_v1",
)
"""What sluice.enqueue calls, under its settings: each change of settings costs as much as the function, and a
task takes twenty calls."""
SETTINGS: dict[str, tuple[str, ...] | None] = {
    # planned once for any lanes, as planning a claim of a few tasks takes as long as the claim
    "claim_v1": (*NEVER_SORTED, "plan_cache_mode = force_generic_plan"),
    "forming_v1": (*NEVER_SORTED, "plan_cache_mode = force_generic_plan"),
    "fold_flows_v1": PLANNED_ONCE,
    "pick_flows_v1": PLANNED_ONCE,
    "open_flows_v1": PLANNED_ONCE,
    "sweep_flows_v1": BY_INDEX_ORDER,
    "promote_v1": NEVER_SORTED,
    "expire_v1": NEVER_SORTED,
    "reap_v1": NEVER_SORTED,
    "poll_v1": BY_INDEX_ORDER,
    "ready_lanes_v1": BY_INDEX_ORDER,
    "fold_v1": BY_INDEX_ORDER,
    "close_batch_v1": BY_INDEX_ORDER,
    "sweep_batch_v1": BY_INDEX_ORDER,
    "act_v1": BY_INDEX_ORDER,
    # joins a page's arrays with each other: without a hash join, a thousand items cost a million comparisons
    "settle_followups_v1": ("enable_seqscan = off", "jit = off"),
    # one row by its primary key
    "extend_lease_v1": (),
    # only calls others, or makes tables
    "enqueue_atomic_v1": (),
    "settle_claim_v1": ("plan_cache_mode = force_generic_plan",),
    "ensure_partitions_v1": (),
    "record_audit_v1": (),
    "refuse_change_v1": (),
    "admit_role_v1": (),
    # planned once for groups of any size: planning takes longer than writing a small group
    "enqueue_v1": PLANNED_ONCE,
    "enqueue_plain_v1": PLANNED_ONCE,
    "enqueue_dead_v1": PLANNED_ONCE,
    "take_source_room_v1": PLANNED_ONCE,
    "held_keys_v1": PLANNED_ONCE,
    "replace_held_v1": PLANNED_ONCE,
    "settle_v1": PLANNED_ONCE,
    "signal_flows_v1": PLANNED_ONCE,
    "bury_v1": PLANNED_ONCE,
    "call_back_v1": PLANNED_ONCE,
    "revive_v1": PLANNED_ONCE,
    # no search path either, which would prevent inlining; the names in their bodies were resolved when they were created
    "uuid7_v1": None,
    "pushed_back_v1": None,
    "ended_v1": None,
    "hash_v1": None,
    "flow_id_v1": None,
    "bucket_v1": None,
    "flow_buckets_v1": None,
    "bucket_states_v1": None,
    **dict.fromkeys(WITHIN_ENQUEUE),
    "enqueue": CALLED,
    "enqueue_many": CALLED,
}
"""The exceptions; all others are PLANNED."""
SIGNATURES = {
    "enqueue": "enqueue(text, text, jsonb)",
    "enqueue_jsonb": "enqueue(text, jsonb, jsonb)",
    "enqueue_many": "enqueue_many(text, jsonb[])",
}
"""By file, the functions that other roles call. They run with the rights of the schema's owner."""


def install(run: Callable[[str], object], names: Iterable[str]) -> None:
    """Create these functions and attach their settings; `run` executes a statement."""
    for name in names:
        run(named((FUNCTIONS / f"{name}.sql").read_text()))
        function = SIGNATURES.get(name, name)
        settings = SETTINGS.get(function.partition("(")[0], PLANNED)
        if settings is not None:
            run(
                f"alter function sluice.{function} "
                + " ".join(f"set {setting}" for setting in (f"search_path = {SEARCH_PATH}", *settings))
            )
        if name in SIGNATURES:
            run(f"alter function sluice.{function} security definer")
        # a role that may call sluice.enqueue may use the schema, and would by default call every function in it
        run(f"revoke execute on function sluice.{function} from public")
