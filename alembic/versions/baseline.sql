-- The first schema. Tables in order: owners, definitions, live tasks, ended tasks, auxiliary tables.
create table sluice.meta (
  only_row boolean not null default true constraint meta_pkey primary key constraint meta_only_row check (only_row),
  schema_version integer not null,
  min_compatible integer not null,
  digest text not null
);

-- wrapped_by: the fingerprint of the encryption key that the data key is encrypted with; null: it is stored as it is.
create table sluice.keyring (
  only_row boolean not null default true constraint keyring_pkey primary key constraint keyring_only_row check (only_row),
  data_key bytea not null,
  wrapped_by text
);

create table sluice.tenants (
  id bigint generated always as identity constraint tenants_pkey primary key,
  name text not null constraint tenants_name_key unique,
  max_concurrency integer constraint tenants_max_concurrency check (max_concurrency > 0),
  granted_max_concurrency integer constraint tenants_granted_max_concurrency check (granted_max_concurrency > 0),
  flows boolean not null default false,
  created_at timestamptz not null default clock_timestamp()
);

-- Keys are revoked, never removed. The previous secret is accepted until its end, while a new one is rolled out.
-- Only the digest of a token is kept. The secret of an access key is kept sealed, because verifying a signature needs it.
create table sluice.api_keys (
  id text not null constraint api_keys_pkey primary key,
  tenant_id bigint not null constraint api_keys_tenant_fkey references sluice.tenants,
  scope text not null constraint api_keys_scope check (scope in ('read', 'use', 'manage', 'operate')),
  queues text[] constraint api_keys_queues check (cardinality(queues) > 0),
  payloads boolean not null default true,
  description text,
  kind text not null default 'bearer' constraint api_keys_kind check (kind in ('bearer', 'aws')),
  digest bytea not null,
  previous_digest bytea,
  sealed_secret bytea,
  previous_sealed_secret bytea,
  previous_until timestamptz,
  bootstrap boolean not null default false,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  constraint api_keys_secret check ((kind = 'aws') = (sealed_secret is not null))
);

-- Roles of the database that may call sluice.enqueue, for which tenant, and on which queues (patterns; null: all of them).
create table sluice.grants (
  role text not null constraint grants_pkey primary key,
  tenant_id bigint not null constraint grants_tenant_fkey references sluice.tenants,
  queues text[] constraint grants_queues check (cardinality(queues) > 0),
  created_at timestamptz not null default clock_timestamp()
);

create unique index api_keys_bootstrap_key on sluice.api_keys (bootstrap) where bootstrap and revoked_at is null;

-- Of people who look at pages: only the digest of what is in the cookie. A session acts as its key, and ends with the token that opened it.
create table sluice.sessions (
  digest bytea not null constraint sessions_pkey primary key,
  key_id text not null constraint sessions_key_fkey references sluice.api_keys,
  key_digest bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
);

create index sessions_expiry on sluice.sessions (expires_at);

-- url is empty, and address not null, for all kinds but webhook: sealed_address has what of an address is secret.
-- parked_until, effective_max_concurrency (0: the breaker is open), half_open and period are what claims read of a handler's health.
-- Deleted handlers and queues are only marked, because tasks in history still refer to their names.
create table sluice.handlers (
  id bigint generated always as identity constraint handlers_pkey primary key,
  tenant_id bigint not null constraint handlers_tenant_fkey references sluice.tenants,
  name text not null,
  kind text not null default 'webhook' constraint handlers_kind check (kind in ('webhook', 'sqs', 'redis_stream')),
  url text not null,
  address json,
  sealed_address bytea,
  timeout_seconds double precision not null,
  sealed_headers bytea not null,
  max_concurrency integer constraint handlers_max_concurrency check (max_concurrency > 0),
  fatal_statuses integer[] not null default '{}',
  limits jsonb not null default '[]',
  flows boolean not null default false,
  breaker json,
  adaptive json,
  park_on_retry_after text not null default 'task',
  description text,
  group_max_tasks integer,
  group_wait_seconds double precision,
  targets text not null default 'own' constraint handlers_targets check (targets in ('own', 'path', 'any')),
  etag text not null,
  owner text,
  sealed_secret bytea not null,
  sealed_previous_secret bytea,
  previous_secret_until timestamptz,
  enabled boolean not null default true,
  disabled_at timestamptz,
  disabled_reason text,
  parked_until timestamptz,
  effective_max_concurrency integer constraint handlers_effective_max_concurrency check (effective_max_concurrency >= 0),
  half_open boolean not null default false,
  period bigint not null default 0,
  version bigint not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  deleted_at timestamptz
);
create unique index handlers_name_key on sluice.handlers (tenant_id, name) where deleted_at is null;

-- What is known of a handler with a breaker or an adaptive limit (Health in app/domain/breakers.py). It changes only under the
-- handler's exclusive lock, and what claims read of it is in handlers. look_at: when time alone changes it.
create table sluice.handler_health (
  handler_id bigint not null constraint handler_health_pkey primary key,
  health jsonb not null,
  look_at timestamptz
) with (fillfactor = 50);
create index handler_health_look on sluice.handler_health (look_at) where look_at is not null;

-- Their calls by second and by the period in which they were admitted, summed over all replicas. durations: a histogram.
create table sluice.handler_calls (
  handler_id bigint not null,
  second bigint not null,
  period bigint not null,
  calls integer not null,
  failures integer not null,
  pushed_back integer not null,
  found_full boolean not null,
  durations bigint[] not null,
  constraint handler_calls_pkey primary key (handler_id, second, period)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- limits: the named limits that all tasks take, [{"name", "key"?, "cost"?}]. flows, as in tenants and handlers: claims of these tasks
-- go through the tenant's gate (pick_flows_v1), because they have a key, named limits or a rate, or had some.
create table sluice.queues (
  id bigint generated always as identity constraint queues_pkey primary key,
  tenant_id bigint not null constraint queues_tenant_fkey references sluice.tenants,
  name text not null,
  handler_id bigint constraint queues_handler_fkey references sluice.handlers,
  max_concurrency integer constraint queues_max_concurrency check (max_concurrency > 0),
  max_depth integer constraint queues_max_depth check (max_depth > 0),
  timeout_seconds double precision,
  retry json not null,
  max_attempts integer not null,
  idempotency_seconds double precision not null,
  callbacks jsonb,
  payload_schema text,
  limits jsonb not null default '[]',
  flows boolean not null default false,
  succeeded_days double precision not null,
  cancelled_days double precision not null,
  dead_days double precision not null,
  encrypt boolean not null default false,
  sqs jsonb,  -- what SQS has beside the definition (domain/sqs.py); null: the queue was made elsewhere
  description text,
  etag text not null,
  owner text,
  paused boolean not null default false,
  paused_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  deleted_at timestamptz
);
create unique index queues_name_key on sluice.queues (tenant_id, name) where deleted_at is null;
create index queues_handler on sluice.queues (handler_id);
create index queues_by_tenant on sluice.queues (tenant_id, name);

-- The unit of claiming: a queue and its tasks' own handler (0: the queue's). sluice.enqueue adds rows under its transaction, so that
-- nobody waits for one that is open: a lane may have several.
create table sluice.lanes (
  queue_id bigint not null,
  handler_id bigint not null,
  transaction xid8 not null default '0',
  constraint lanes_pkey primary key (queue_id, handler_id, transaction)
);

-- Queues that a task of another queue (by_queue_id) has named in callbacks of its own: where to look for such tasks before a queue is
-- deleted. transaction: as of lanes.
create table sluice.callback_uses (
  queue_id bigint not null,
  by_queue_id bigint not null,
  transaction xid8 not null default '0',
  constraint callback_uses_pkey primary key (queue_id, by_queue_id, transaction)
);

-- Everything that flow control enforces beside max_concurrency of tenant, handler and queue, in one form. named: a limit that queues,
-- handlers and tasks name. queue_key: what holds for each key of a queue's tasks. The others are rates; owner_id is their queue,
-- handler or tenant. The columns of rates: rate_limit units per rate_period_seconds, with rate_burst at once (null: what 0.1 s brings).
create table sluice.limits (
  id bigint generated always as identity constraint limits_pkey primary key,
  tenant_id bigint not null constraint limits_tenant_fkey references sluice.tenants,
  kind text not null constraint limits_kind check (kind in ('named', 'queue_key', 'queue_rate', 'handler_rate', 'tenant_rate')),
  name text constraint limits_name check ((name is null) = (kind <> 'named')),
  owner_id bigint constraint limits_owner check ((owner_id is null) = (kind = 'named')),
  keyed boolean not null default false,
  max_concurrency integer constraint limits_max_concurrency check (max_concurrency > 0),
  rate_limit double precision constraint limits_rate_limit check (rate_limit > 0),
  rate_period_seconds double precision not null default 1 constraint limits_rate_period check (rate_period_seconds > 0),
  rate_burst integer constraint limits_rate_burst check (rate_burst > 0),
  max_depth integer constraint limits_max_depth check (max_depth > 0),
  ordered boolean not null default false,
  required boolean not null default false,
  paused boolean not null default false,
  paused_at timestamptz,
  description text,
  etag text not null default '',
  owner text,
  version bigint not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp()
);
create unique index limits_name_key on sluice.limits (tenant_id, name) where name is not null;
create unique index limits_owner_key on sluice.limits (owner_id, kind) where owner_id is not null;

-- What holds for one key of a limit, in place of the limit's own values (null: those). weight counts for kind queue_key alone.
create table sluice.limit_keys (
  limit_id bigint not null constraint limit_keys_limit_fkey references sluice.limits on delete cascade,
  key text not null,
  bucket_id bigint not null constraint limit_keys_bucket_key unique,
  max_concurrency integer constraint limit_keys_max_concurrency check (max_concurrency > 0),
  rate_limit double precision constraint limit_keys_rate_limit check (rate_limit > 0),
  rate_period_seconds double precision not null default 1 constraint limit_keys_rate_period check (rate_period_seconds > 0),
  rate_burst integer constraint limit_keys_rate_burst check (rate_burst > 0),
  weight double precision not null default 1 constraint limit_keys_weight check (weight > 0),
  paused boolean not null default false,
  paused_at timestamptz,
  updated_at timestamptz not null default clock_timestamp(),
  constraint limit_keys_pkey primary key (limit_id, key)
);

-- Live tasks. States: app/store/numbers.py. A held slot is a running row, and only a running row has a lease_token.
-- options is what a task only carries (app/domain/options.py): no index and no decision depends on it, except on its key and limits,
-- by which flow_id says with which other tasks it is admitted or blocked (null: it has neither). null means none.
-- gated: while running, it was admitted through its tenant's gate (pick_flows_v1).
-- Columns named last_… are the newest attempt, so that a task that succeeds at once writes no row in attempts.
-- renewed_at: when the lease was last renewed; it is of an earlier attempt if it lies before last_started_at, so that no claim writes it.
-- No foreign keys: they cost a third of the throughput and a multixact per group.
-- Statistics are not renewed for a few tasks: each renewal makes every session plan its statements anew, which the next task waits for.
create table sluice.tasks (
  id uuid not null constraint tasks_pkey primary key,
  tenant_id bigint not null,
  queue_id bigint not null,
  handler_id bigint not null default 0,
  state smallint not null constraint tasks_state check (state between :state_ready and :state_scheduled),
  priority smallint not null,
  run_at timestamptz not null,
  created_at timestamptz not null,
  gated boolean not null default false,
  flow_id bigint,
  expires_at timestamptz,
  payload bytea not null,
  options jsonb,
  idempotency_key text,
  idempotency_until timestamptz,
  unique_key text,
  max_attempts integer,
  root_id uuid,
  parent_id uuid,
  batch_id uuid,
  completes uuid,
  progress json,
  attempt integer not null default 0,
  claims integer not null default 0,
  last_error text,
  lease_token uuid,
  lease_owner uuid,
  lease_claim uuid,
  lease_handler_id bigint,
  lease_expires_at timestamptz,
  last_token uuid,
  last_counted boolean,
  last_replica text,
  last_started_at timestamptz,
  last_ended_at timestamptz,
  last_outcome text,
  last_status integer,
  last_message text,
  last_excerpt text,
  last_trace_id text,
  renewed_at timestamptz,
  constraint tasks_running_is_leased check ((state = :state_running) = (lease_token is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
-- Not of running tasks: every claim would write it. claims >= 0 is always true: only the queries that are to use this index include
-- it, so that no other query mistakes it for a cheap way to a few tasks.
create index tasks_waiting on sluice.tasks (queue_id, id) where state <> :state_running and claims >= 0;
create unique index tasks_unique_key on sluice.tasks (queue_id, unique_key) where unique_key is not null;
create index tasks_ready on sluice.tasks (queue_id, handler_id, priority desc, run_at, id) where state = :state_ready and flow_id is null;
create index tasks_flow_ready on sluice.tasks (queue_id, flow_id, priority desc, run_at, id)
  where state = :state_ready and flow_id is not null;
-- a key's tasks in the order of enqueueing, for queues whose keys are ordered or have a max_depth
create index tasks_key on sluice.tasks (queue_id, (options ->> 'key'), created_at, id) where flow_id is not null and claims >= 0;
-- which limits tasks name themselves, for whoever deletes a limit
create index tasks_limits on sluice.tasks (tenant_id, (options -> 'limits')) where flow_id is not null and options ? 'limits';
-- claims >= 0 as above, for the queries for due tasks
create index tasks_due on sluice.tasks (tenant_id, run_at) where state = :state_scheduled and claims >= 0;
create index tasks_scheduled on sluice.tasks (queue_id, id) where state = :state_scheduled;
create index tasks_expiring on sluice.tasks (tenant_id, expires_at) where state <> :state_running and expires_at is not null;
-- one for counting under limits, for lists and for the reaper: every claim writes it
create index tasks_running on sluice.tasks (tenant_id, queue_id, lease_expires_at, lease_handler_id) where state = :state_running;
-- for the errors of the last day; a task that has never failed has no place in it
create index tasks_failing on sluice.tasks (queue_id, last_started_at, id) where last_error is not null;
create index tasks_by_batch on sluice.tasks (batch_id, id) where batch_id is not null;
create index tasks_scheduled_by_batch on sluice.tasks (batch_id) where state = :state_scheduled and batch_id is not null;

create trigger tasks_join_flow before insert on sluice.tasks for each row
  when (new.flow_id is null and new.options ?| array['key', 'limits']) execute function sluice.join_flow_v1();

-- Flows: tasks of one lane with the same key and own limits, which are admitted or blocked together (pick_flows_v1). A flow has a row
-- while it has ready tasks, and each lane that is claimed through the gate has one for its tasks without key and limits (plain), whose
-- clock is the lane's virtual time. parked_on: the bucket without room that blocks it; null: open. buckets, limit_ids and costs are
-- what its tasks take (flow_buckets_v1); null: to be worked out again.
-- Written under the tenant's gate alone.
create table sluice.flows (
  id bigint not null constraint flows_pkey primary key,
  tenant_id bigint not null,
  queue_id bigint not null,
  handler_id bigint not null,
  plain boolean not null default false,
  key text,
  own_limits jsonb,
  buckets bigint[],
  limit_ids bigint[],
  costs integer[],
  weight double precision not null default 1,
  priority smallint not null default 0,
  vt double precision not null,
  clock double precision,
  parked_on bigint,
  parked_limit bigint
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index flows_open on sluice.flows (queue_id, handler_id, priority desc, vt, id) where parked_on is null and not plain;
create index flows_parked on sluice.flows (parked_on, queue_id, handler_id, priority desc, vt, id) where parked_on is not null;
create index flows_blocked on sluice.flows (queue_id, handler_id) where parked_on is not null;
create index flows_lanes on sluice.flows (tenant_id, queue_id, handler_id) where plain;

-- Who holds what of a bucket: a limit under one key. A row counts only while its task is running with that number of claims.
-- Written under the tenant's gate alone, and deleted with the signal that the run has ended.
create table sluice.holds (
  bucket_id bigint not null,
  task_id uuid not null,
  claims integer not null,
  limit_id bigint not null,
  constraint holds_pkey primary key (bucket_id, task_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
-- claims > 0 as above, for the deletion by tasks
create index holds_task on sluice.holds (task_id) where claims > 0;

-- The state of a bucket with a rate: tat, the arrival time of GCRA, which was reckoned with unit_seconds per unit. Nothing is admitted
-- before open_at; then as many parked flows as opens are looked at again.
create table sluice.rate_clocks (
  bucket_id bigint not null constraint rate_clocks_pkey primary key,
  tenant_id bigint not null,
  limit_id bigint not null,
  tat timestamptz not null,
  unit_seconds double precision not null,
  open_at timestamptz,
  opens integer not null default 1
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index rate_clocks_timers on sluice.rate_clocks (tenant_id, open_at) where open_at is not null;

-- "Look at this flow again", or "this run has ended": one per transaction and flow, or per transaction and run (task_id and claims;
-- else zeros). Written with whatever it is about (signal_flows_v1), and deleted under the tenant's gate alone.
create table sluice.flow_signals (
  tenant_id bigint not null,
  transaction xid8 not null default pg_current_xact_id(),
  flow_id bigint not null,
  task_id uuid not null,
  claims integer not null,
  queue_id bigint not null,
  handler_id bigint not null,
  key text,
  constraint flow_signals_pkey primary key (tenant_id, transaction, flow_id, task_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What sluice.enqueue has added, one row per task, until a replica has taken note of it (take_arrivals). created: it is a new task, not one
-- that was waiting. due_at: when it becomes ready, or expires.
create table sluice.arrivals (
  n bigint generated always as identity constraint arrivals_pkey primary key,
  queue_id bigint not null,
  handler_id bigint not null,
  created boolean not null,
  due_at timestamptz
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Attempts of live tasks before the newest one.
create table sluice.attempts (
  task_id uuid not null,
  number integer not null,
  token uuid not null,
  counted boolean not null,
  replica text,
  started_at timestamptz not null,
  ended_at timestamptz,
  outcome text,
  status integer,
  message text,
  excerpt text,
  trace_id text,
  constraint attempts_pkey primary key (task_id, number)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

create table sluice.idempotency_keys (
  queue_id bigint not null,
  key text not null,
  fingerprint bytea not null,
  task_id uuid not null,
  expires_at timestamptz not null,
  constraint idempotency_keys_pkey primary key (queue_id, key)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index idempotency_keys_expiry on sluice.idempotency_keys (expires_at);

-- One row per enqueue group, so that a group whose answer was lost can be run again without inserting twice.
create table sluice.receipts (
  group_id uuid not null constraint receipts_pkey primary key,
  verdicts jsonb not null,
  created_at timestamptz not null default clock_timestamp()
) with (autovacuum_analyze_threshold = 5000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index receipts_created on sluice.receipts (created_at);

-- Ended tasks, partitioned by the day on which they expire, so that a whole day can be dropped.
-- callback: the one that was enqueued when the task ended.
create table sluice.task_history (
  id uuid not null,
  kept_until timestamptz not null,
  tenant_id bigint not null,
  queue_id bigint not null,
  handler_id bigint not null,
  state smallint not null constraint task_history_state check (state between :state_succeeded and :state_cancelled),
  reason text,
  ended_at timestamptz not null,
  priority smallint not null,
  run_at timestamptz not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  payload bytea not null,
  options jsonb,
  idempotency_key text,
  idempotency_until timestamptz,
  unique_key text,
  max_attempts integer,
  root_id uuid,
  parent_id uuid,
  batch_id uuid,
  completes uuid,
  progress json,
  attempt integer not null,
  claims integer not null,
  last_error text,
  result bytea,
  result_format text,
  result_truncated boolean not null default false,
  lease_handler_id bigint,
  last_token uuid,
  last_counted boolean,
  last_replica text,
  last_started_at timestamptz,
  last_ended_at timestamptz,
  last_outcome text,
  last_status integer,
  last_message text,
  last_excerpt text,
  last_trace_id text,
  callback jsonb,
  constraint task_history_pkey primary key (id, kept_until)
) partition by range (kept_until);
-- the included columns allow counting a queue's ended tasks without reading them
create index task_history_by_queue on sluice.task_history (queue_id, id) include (state, kept_until);
-- for the errors of the last day
create index task_history_died on sluice.task_history (queue_id, ended_at, id) where state = :state_dead;
create index task_history_dead on sluice.task_history (queue_id, id) where state = :state_dead;
-- across queues: a tenant's lists by those states in which few tasks end
-- (the included columns allow counting them by queue without reading them)
create index task_history_unsuccessful on sluice.task_history (tenant_id, id) include (queue_id, state, kept_until)
  where state > :state_succeeded;
create index task_history_by_batch on sluice.task_history (batch_id, id) where batch_id is not null;

create table sluice.attempt_history (
  task_id uuid not null,
  number integer not null,
  kept_until timestamptz not null,
  token uuid not null,
  counted boolean not null,
  replica text,
  started_at timestamptz not null,
  ended_at timestamptz,
  outcome text,
  status integer,
  message text,
  excerpt text,
  trace_id text,
  constraint attempt_history_pkey primary key (task_id, number, kept_until)
) partition by range (kept_until);

-- A fan-out and its progress; one formed by follow-up work has the id of its root task. Counts are folded from deltas, which every
-- transaction that adds or ends a task appends, so that no row serialises settling. recent counts tasks that ended lately and decays
-- (fold_v1). swept: a cancelled batch has no live tasks left. run_open: it is a schedule's run whose end is not in the ledger yet.
create table sluice.batches (
  id uuid not null constraint batches_pkey primary key,
  tenant_id bigint not null,
  queue_id bigint not null,
  sealed boolean not null,
  created_at timestamptz not null default clock_timestamp(),
  cancelled_at timestamptz,
  cancel_reason text constraint batches_cancel_reason check ((cancel_reason is null) = (cancelled_at is null)),
  swept boolean not null default false,
  run_open boolean not null default false,
  completed_at timestamptz,
  keys_until timestamptz,
  kept_until timestamptz,
  total bigint not null default 0,
  succeeded bigint not null default 0,
  dead bigint not null default 0,
  cancelled bigint not null default 0,
  recent double precision not null default 0,
  recent_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
create index batches_by_tenant on sluice.batches (tenant_id, id);
create index batches_open on sluice.batches (tenant_id, id) where completed_at is null;
create index batches_unswept on sluice.batches (tenant_id, id) where cancelled_at is not null and not swept;
create index batches_runs on sluice.batches (tenant_id, id) where run_open and completed_at is not null;
create index batches_keys on sluice.batches (keys_until) where keys_until is not null;
create index batches_kept on sluice.batches (kept_until) where kept_until is not null;

create table sluice.batch_deltas (
  tenant_id bigint not null,
  batch_id uuid not null,
  n bigint generated always as identity,
  total integer not null default 0,
  succeeded integer not null default 0,
  dead integer not null default 0,
  cancelled integer not null default 0,
  constraint batch_deltas_pkey primary key (tenant_id, batch_id, n)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What to enqueue when a batch completes, each distinct entry once: digest is of its queue and of its payload before that
-- was encrypted (app/store/contents.py), and of its type. sealed_for: what the payload is encrypted for; null: it is not.
create table sluice.batch_completions (
  batch_id uuid not null,
  digest bytea not null,
  queue_id bigint not null,
  payload bytea not null,
  sealed_for text,
  type text,
  task_id uuid,
  constraint batch_completions_pkey primary key (batch_id, digest)
);
create index batch_completions_open on sluice.batch_completions (queue_id) where task_id is null;

-- The keys of follow-up tasks: unique under their root, over all pages.
create table sluice.followup_keys (
  batch_id uuid not null,
  root_id uuid not null,
  queue_id bigint not null,
  key text not null,
  constraint followup_keys_pkey primary key (batch_id, root_id, queue_id, key)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Schedules. next_nominal_at is the first nominal time that is not in the ledger yet, look_at when a replica must act on it; both are
-- null if nothing more comes. version counts definitions, seq everything that decisions depend on: a write that finds both unchanged
-- was decided on current data.
create table sluice.schedules (
  id bigint generated always as identity constraint schedules_pkey primary key,
  tenant_id bigint not null constraint schedules_tenant_fkey references sluice.tenants,
  name text not null,
  queue_id bigint not null constraint schedules_queue_fkey references sluice.queues,
  handler_id bigint not null default 0,
  definition text not null,
  payload bytea not null,
  priority smallint not null,
  options jsonb,
  max_attempts integer,
  then_queue_id bigint,
  then_digest bytea,
  then_payload bytea,
  then_sealed_for text,
  etag text not null,
  owner text,
  paused boolean not null default false,
  paused_at timestamptz,
  paused_reason text,
  version bigint not null default 1,
  seq bigint not null default 0,
  next_nominal_at timestamptz,
  look_at timestamptz,
  runs bigint not null default 0,
  failures integer not null default 0,
  missed bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  deleted_at timestamptz
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
create unique index schedules_name_key on sluice.schedules (tenant_id, name) where deleted_at is null;
create index schedules_look on sluice.schedules (tenant_id, look_at) where look_at is not null;
create index schedules_queue on sluice.schedules (queue_id) where deleted_at is null;
create index schedules_missed on sluice.schedules (id) where missed > 0 and deleted_at is null;

-- Queues elsewhere, from which tasks come in. sealed: credentials and URLs. version counts whatever a receiver must notice.
create table sluice.sources (
  id bigint generated always as identity constraint sources_pkey primary key,
  tenant_id bigint not null constraint sources_tenant_fkey references sluice.tenants,
  name text not null,
  queue_id bigint not null constraint sources_queue_fkey references sluice.queues,
  definition text not null,
  sealed bytea not null,
  etag text not null,
  owner text,
  paused boolean not null default false,
  paused_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint sources_name_key unique (tenant_id, name)
);
create index sources_queue on sluice.sources (queue_id);

-- What a source has done and how much waits there, written once per round of a receiver (take_source_room_v1) and removed with it.
-- The row is the lock under which its receivers share max_outstanding.
create table sluice.source_states (
  source_id bigint not null constraint source_states_pkey primary key,
  received bigint not null default 0,
  enqueued bigint not null default 0,
  duplicates bigint not null default 0,
  invalid bigint not null default 0,
  lost bigint not null default 0,
  last_received_at timestamptz,
  lag bigint,
  oldest_age_seconds double precision,
  measured_at timestamptz,
  last_error text,
  last_error_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Replicas that receive from a source. reserved: how many messages each may receive now; failing_since: null while it works.
create table sluice.source_receivers (
  source_id bigint not null,
  replica_id uuid not null,
  reserved integer not null,
  in_flight integer not null,
  failing_since timestamptz,
  constraint source_receivers_pkey primary key (source_id, replica_id)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Tasks of a source that had not ended when somebody last looked: never many more than its max_outstanding.
create table sluice.source_tasks (
  source_id bigint not null,
  task_id uuid not null,
  constraint source_tasks_pkey primary key (source_id, task_id)
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- The ledger: every nominal time of a schedule is in exactly one row that is not extra, enforced by the exclusion constraint. Times
-- without a run share a row from nominal_at to nominal_until. Triggers and reruns are extra. A run's task is also its batch's id.
create table sluice.schedule_runs (
  id uuid not null constraint schedule_runs_pkey primary key,
  schedule_id bigint not null,
  nominal_at timestamptz not null,
  nominal_until timestamptz not null,
  count bigint not null,
  cause text not null constraint schedule_runs_cause check (cause in ('cron', 'catch_up', 'backfill', 'trigger')),
  extra boolean not null,
  outcome text not null,
  overlap text,
  payload bytea,
  jitter_seconds double precision not null default 0,
  fired_at timestamptz,
  started_at timestamptz,
  completed_at timestamptz,
  task_id uuid,
  replica text,
  kept_until timestamptz not null,
  constraint schedule_runs_once exclude using gist (
    int8range(schedule_id, schedule_id, '[]') with &&, tstzrange(nominal_at, nominal_until, '[]') with &&) where (not extra),
  constraint schedule_runs_alone check (task_id is null or count = 1 and nominal_at = nominal_until)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index schedule_runs_history on sluice.schedule_runs (schedule_id, nominal_at, id);
create index schedule_runs_line on sluice.schedule_runs (schedule_id, nominal_at, id) where not extra;
create index schedule_runs_open on sluice.schedule_runs (schedule_id, nominal_at, id) where outcome in ('running', 'waiting');
create unique index schedule_runs_task on sluice.schedule_runs (task_id) where task_id is not null;
create index schedule_runs_kept on sluice.schedule_runs (kept_until);

-- Minute histograms per queue, summed over all replicas. ready and running: how many there were early in that minute (null: not
-- known), written once by the replica that first adds the row of queue 0, which says that the minute was sampled.
create table sluice.queue_minutes (
  queue_id bigint not null,
  minute timestamptz not null,
  enqueued bigint not null default 0,
  started bigint not null default 0,
  succeeded bigint not null default 0,
  dead bigint not null default 0,
  cancelled bigint not null default 0,
  retried bigint not null default 0,
  wait bigint[] not null default '{}',
  run bigint[] not null default '{}',
  ready bigint,
  running bigint,
  constraint queue_minutes_pkey primary key (queue_id, minute)
) with (fillfactor = 70);

-- The same over all queues of a tenant, summed when the minute is over.
create table sluice.tenant_minutes (
  tenant_id bigint not null,
  minute timestamptz not null,
  enqueued bigint not null,
  started bigint not null,
  succeeded bigint not null,
  dead bigint not null,
  cancelled bigint not null,
  retried bigint not null,
  wait bigint[] not null,
  run bigint[] not null,
  ready bigint,
  running bigint,
  constraint tenant_minutes_pkey primary key (tenant_id, minute)
);

-- Actions on all tasks that match a filter. What matched at created_at is listed first, in windows up to scanned_to, then acted on in the
-- order of ids up to acted_to, or up to `most` tasks (null: all). search: the filter with names resolved to ids. found: how many were listed;
-- matched is counted beforehand where `most` bounds it. waits: the second pass, for tasks whose rows others had locked.
-- swept: it has ended, and nothing is left on its list.
create table sluice.actions (
  id uuid not null constraint actions_pkey primary key,
  tenant_id bigint not null,
  kind text not null constraint actions_kind check (
    kind in ('cancel', 'retry', 'redrive', 'purge', 'reschedule', 'set_priority', 'empty', 'move')),
  filter jsonb not null,
  search jsonb not null,
  run_at timestamptz,
  priority smallint,
  rate_per_second double precision constraint actions_rate check (rate_per_second > 0),
  most bigint,
  reason text,
  created_by text,
  created_at timestamptz not null default clock_timestamp(),
  state text not null default 'running' constraint actions_state check (state in ('running', 'done', 'cancelled')),
  ended_at timestamptz constraint actions_ended check ((ended_at is null) = (state = 'running')),
  matched bigint,
  found bigint not null default 0,
  done bigint not null default 0,
  refused bigint not null default 0,
  failed bigint not null default 0,
  errors jsonb not null default '[]',
  scanned_to uuid not null default '00000000-0000-0000-0000-000000000000',
  listed boolean not null default false,
  acted_to uuid not null default '00000000-0000-0000-0000-000000000000',
  waits boolean not null default false,
  next_at timestamptz not null default clock_timestamp(),
  swept boolean not null default false,
  idempotency_key text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index actions_by_tenant on sluice.actions (tenant_id, id);
create index actions_of_queue on sluice.actions (tenant_id, kind, (filter ->> 'queue'), id) where kind in ('empty', 'move');
create index actions_running on sluice.actions (tenant_id, next_at) where state = 'running';
create index actions_ended on sluice.actions (ended_at) where ended_at is not null;
create index actions_unswept on sluice.actions (ended_at) where ended_at is not null and not swept;
create unique index actions_idempotency_key on sluice.actions (tenant_id, coalesce(created_by, ''), idempotency_key)
  where idempotency_key is not null;

-- What is left of an action: a row is deleted by the transaction that acts on its task.
create table sluice.action_tasks (
  action_id uuid not null,
  task_id uuid not null,
  constraint action_tasks_pkey primary key (action_id, task_id)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- When a worker last asked for tasks of a queue; for people, recorded every few seconds by the replica that it asks.
create table sluice.queue_workers (
  queue_id bigint not null constraint queue_workers_pkey primary key,
  asked_at timestamptz not null
) with (fillfactor = 70);

-- Who changed what, when, from where, with what result: one row per call that changes something, partitioned by the month of `at`. Rows
-- are added (record_audit_v1), and forgotten with their whole month; nobody changes them. before and after: the changed fields. calls: how many
-- refused calls it stands for.
create table sluice.audit (
  at timestamptz not null default clock_timestamp(),
  id uuid not null default sluice.uuid7_v1(),
  tenant_id bigint not null,
  actor text not null constraint audit_actor check (actor in ('key', 'cli', 'system')),
  actor_key text,
  actor_tenant text,
  actor_scope text,
  verb text not null,
  noun text not null,
  name text,
  outcome text not null constraint audit_outcome check (outcome in ('done', 'refused')),
  code text constraint audit_code check ((code is null) = (outcome = 'done')),
  calls integer not null default 1 constraint audit_calls check (calls = 1 or calls > 1 and outcome = 'refused'),
  before json,
  after json,
  address text,
  request_id text,
  replica text,
  constraint audit_pkey primary key (at, id)
) partition by range (at);
create index audit_of_tenant on sluice.audit (tenant_id, at, id);
create index audit_of_name on sluice.audit (tenant_id, name, at, id);
create trigger audit_append_only before update or delete on sluice.audit for each row
  execute function sluice.refuse_change_v1();
create trigger audit_not_emptied before truncate on sluice.audit execute function sluice.refuse_change_v1();

-- For people; no decision depends on it. short_…: whose ready tasks found no place among an engine's calls.
create table sluice.replicas (
  id uuid not null constraint replicas_pkey primary key,
  name text not null,
  roles text not null,
  version text not null,
  started_at timestamptz not null,
  seen_at timestamptz not null,
  draining boolean not null default false,
  deaf boolean not null default false,
  connections integer not null default 0,
  connections_wanted integer not null default 0,
  max_in_flight integer not null default 0,
  max_payload_bytes integer,
  in_flight integer not null default 0,
  short_tenants bigint[] not null default '{}',
  short_queues bigint[] not null default '{}'
);

-- Composite types for statements with many items: one array of named fields instead of one array per field. A type is part of the
-- signature of the functions that take it, so it has a version like theirs. The driver's tuples (Entry, LaneWant, AttemptEnd) have the same
-- fields in the same order.
create type sluice.entry_v1 as (
  task_id uuid,
  queue_id bigint,
  queue_version bigint,
  handler_id bigint,
  payload bytea,
  key text,
  fingerprint bytea,
  unique_key text,
  priority smallint,
  run_at timestamptz,
  delay_seconds double precision,
  expires_at timestamptz,
  ttl_seconds double precision,
  max_attempts integer,
  options jsonb,
  on_duplicate text,
  debounce_max_seconds double precision,
  key_seconds double precision
);

create type sluice.lane_v1 as (
  queue_id bigint,
  handler_id bigint,
  want integer,
  priority smallint,
  since timestamptz
);

-- A lane's turn in a claim (claim_v1): what it is, what was decided and what came of it.
create type sluice.turn_v1 as (
  place integer,
  queue_id bigint,
  lane bigint,
  want integer,
  priority smallint,
  since timestamptz,
  tenant_id bigint,
  handler_id bigint,
  queue_version bigint,
  handler_version bigint,
  timeout double precision,
  tenant_limit integer,
  handler_limit integer,
  half_open boolean,
  period bigint,
  opens_in double precision,
  queue_limit integer,
  group_tasks integer,
  group_wait double precision,
  gated boolean,
  verdict text,
  room integer,
  got integer,
  apart boolean,
  full_at text,
  forms_in double precision,
  wait_seconds double precision,
  opened jsonb,
  last_priority smallint,
  last_run_at timestamptz
);

create type sluice.outcome_v1 as (
  task_id uuid,
  token uuid,
  kind text,
  outcome text,
  reason text,
  delay_seconds double precision,
  status integer,
  message text,
  excerpt text,
  result bytea,
  result_format text,
  result_truncated boolean,
  trace_id text
);
