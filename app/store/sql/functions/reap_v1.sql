-- End the attempts whose lease ran out: the attempt counts, the task is ready at once, or dead at its last allowed attempt.
-- An attempt whose late outcome is already on record keeps that record. SKIP LOCKED: another replica has those rows.
-- called: a replica was calling a handler under this lease, and counts the attempt itself.
create function sluice.reap_v1(p_limit integer)
returns table (task_id uuid, tenant_id bigint, queue_id bigint, lane bigint, handler_id bigint, dead boolean, called boolean,
               tenant text, queue text, outcome text, ran_seconds double precision) language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off
set enable_bitmapscan = off set jit = off
as $$
#variable_conflict use_column
declare v_ids uuid[]; v_called uuid[]; v_dead uuid[]; v_expired uuid[]; v_now timestamptz;
begin
  select array_agg(l.id), array_agg(l.id) filter (where l.lease_owner is not null) into v_ids, v_called
  from (select t.id, t.lease_owner from sluice.tasks t where t.state = 1 and t.lease_expires_at <= statement_timestamp()
        order by t.lease_expires_at limit p_limit for update skip locked) l;
  if v_ids is null then return; end if;
  v_now := clock_timestamp();
  update sluice.tasks t set state = 0, run_at = v_now, lease_token = null, lease_owner = null, lease_claim = null,
    lease_expires_at = null, last_counted = true, last_ended_at = coalesce(t.last_ended_at, v_now),
    last_outcome = coalesce(nullif(t.last_outcome, 'held'), 'lease_expired'),
    last_message = coalesce(t.last_message, 'the lease ran out: the replica or worker that held it went silent'),
    last_error = coalesce(t.last_message, 'the lease ran out: the replica or worker that held it went silent')
  where t.id = any(v_ids);
  select array_agg(t.id) filter (where t.attempt >= coalesce(t.max_attempts, q.max_attempts)),
         array_agg(t.id) filter (where t.attempt < coalesce(t.max_attempts, q.max_attempts) and t.expires_at <= v_now)
    into v_dead, v_expired
  from sluice.tasks t join sluice.queues q on q.id = t.queue_id where t.id = any(v_ids);
  return query
    select t.id, t.tenant_id, t.queue_id, t.handler_id, coalesce(t.lease_handler_id, 0),
           t.id = any(coalesce(v_dead || v_expired, '{}')), t.id = any(coalesce(v_called, '{}')),
           n.name, q.name, t.last_outcome, extract(epoch from t.last_ended_at - t.last_started_at)::double precision
    from sluice.tasks t join sluice.queues q on q.id = t.queue_id join sluice.tenants n on n.id = t.tenant_id
    where t.id = any(v_ids);
  if v_dead is not null then
    perform sluice.bury_v1(v_dead, 4::smallint, 'attempts_exhausted', array_fill(v_now, array[cardinality(v_dead)]));
  end if;
  if v_expired is not null then
    perform sluice.bury_v1(v_expired, 4::smallint, 'expired', array_fill(v_now, array[cardinality(v_expired)]));
  end if;
end $$;
