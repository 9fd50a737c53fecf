-- Release what a claim without an answer took: ready again, without counting the attempt. Returns the queues of those tasks.
create function sluice.release_claim_v1(p_claim uuid) returns setof bigint language plpgsql volatile
as $$
declare v_ids uuid[]; v_now timestamptz;
begin
  select array_agg(l.id) into v_ids
  from (select t.id from sluice.tasks t where t.state = :state_running and t.lease_claim = p_claim order by t.id for update) l;
  v_now := clock_timestamp();
  perform sluice.signal_flows_v1(array(select t.id from sluice.tasks t where t.id = any(v_ids) and t.lease_expires_at > v_now));
  return query
    with back as (
      update sluice.tasks t set state = :state_ready, attempt = t.attempt - 1, lease_token = null, lease_owner = null, lease_claim = null,
        lease_expires_at = null, last_counted = false, last_ended_at = v_now, last_outcome = 'released'
      where t.id = any(v_ids) and t.lease_expires_at > v_now returning t.queue_id)
    select distinct b.queue_id from back b;
end $$;
