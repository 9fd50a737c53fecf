"""The first schema: every table of baseline.sql and version 1 of every function."""

from pathlib import Path

from alembic import op

from app.store.functions import SIGNATURES, WITHIN_ENQUEUE, install
from app.store.migrations import digest
from app.store.numbers import named

revision = "0001"
down_revision = None

# the tables refer to these
FIRST = ("hash_v1", "uuid7_v1", "flow_id_v1", "join_flow_v1", "refuse_change_v1")
INSTALLED = (
    "signal_flows_v1",
    "ensure_partitions_v1",
    "record_audit_v1",
    "replace_held_v1",
    "called_queues_v1",
    "enqueue_v1",
    "enqueue_atomic_v1",
    "enqueue_plain_v1",
    "held_keys_v1",
    "bucket_v1",
    "forming_v1",
    "flow_buckets_v1",
    "bucket_states_v1",
    "open_flows_v1",
    "fold_flows_v1",
    "pick_flows_v1",
    "limits_changed_v1",
    "sweep_flows_v1",
    "claim_v1",
    "ended_v1",
    "summary_v1",
    "call_back_v1",
    "bury_v1",
    "record_late_v1",
    "pushed_back_v1",
    "park_key_v1",
    "settle_v1",
    "settle_claim_v1",
    "settle_followups_v1",
    "fold_v1",
    "create_batch_v1",
    "close_batch_v1",
    "sweep_batch_v1",
    "apply_schedules_v1",
    "renew_v1",
    "extend_lease_v1",
    "fate_of_lease_v1",
    "settle_lapsed_v1",
    "release_claim_v1",
    "reap_v1",
    "promote_v1",
    "poll_v1",
    "ready_lanes_v1",
    "expire_v1",
    "cancel_v1",
    "revive_v1",
    "retry_v1",
    "update_task_v1",
    "move_v1",
    "act_v1",
    "enqueue_dead_v1",
    "take_source_room_v1",
    *WITHIN_ENQUEUE,
    "enqueue",
    "enqueue_jsonb",
    "enqueue_many",
    "admit_role_v1",
)
# today, the longest default retention (30 days), and a week ahead
FIRST_PARTITIONS_DAYS = 37


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    install(run, FIRST)
    for statement in named(Path(__file__).with_name("baseline.sql").read_text()).split(";\n"):
        if statement.strip():
            run(statement)
    install(run, INSTALLED)
    run(f"select sluice.ensure_partitions_v1({FIRST_PARTITIONS_DAYS})")
    run("insert into sluice.meta (schema_version, min_compatible, digest) values (1, 1, $1)", (digest(),))
    run("insert into sluice.tenants (name) values ('default')")


def downgrade() -> None:
    run = op.get_bind().exec_driver_sql
    for name in reversed(INSTALLED):  # some depend on earlier ones
        run(f"drop function sluice.{SIGNATURES.get(name, name)}")
    for name in ("entry_v1", "lane_v1", "turn_v1", "outcome_v1"):
        run(f"drop type sluice.{name}")
    for table in (
        "replicas",
        "audit",
        "action_tasks",
        "actions",
        "queue_workers",
        "tenant_minutes",
        "queue_minutes",
        "schedule_runs",
        "source_tasks",
        "source_receivers",
        "source_states",
        "sources",
        "schedules",
        "followup_keys",
        "batch_completions",
        "batch_deltas",
        "batches",
        "attempt_history",
        "task_history",
        "receipts",
        "idempotency_keys",
        "attempts",
        "arrivals",
        "flow_signals",
        "rate_clocks",
        "holds",
        "flows",
        "tasks",
        "limit_keys",
        "limits",
        "callback_uses",
        "lanes",
        "queues",
        "handler_calls",
        "handler_health",
        "handlers",
        "sessions",
        "grants",
        "api_keys",
        "tenants",
        "keyring",
        "meta",
    ):
        run(f"drop table sluice.{table}")
    for name in reversed(FIRST):
        run(f"drop function sluice.{name}")
