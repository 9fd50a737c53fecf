-- Settle a group as settle_v1 does, then claim as claim_v1 does, with one commit for both: the slots that the settled tasks held are
-- free for the claim, which counts what is running in statements after it. Returns claim_v1's rows; the last one also has `settled`,
-- what settle_v1 returned: token -> verdict, and what it says without a token as that of ''.
-- Locks are taken in settle_v1's order. What claim_v1 adds to it is tried or skipped, never waited for, so it deadlocks with nobody.
create function sluice.settle_claim_v1(
  p_outcomes sluice.outcome_v1[],
  p_lanes sluice.lane_v1[], p_owner uuid, p_replica text, p_claim uuid, p_not_after timestamptz, p_lease_seconds double precision)
returns table (
  n integer, task_id uuid, token uuid, lease_expires_at timestamptz, run_at timestamptz, number integer, attempt integer,
  payload bytea, options jsonb, created_at timestamptz, batch_id uuid, lanes jsonb, settled jsonb)
language plpgsql volatile
as $$
#variable_conflict use_column
declare v_settled jsonb;
begin
  select jsonb_object_agg(coalesce(s.token::text, ''), s.verdict) into v_settled from sluice.settle_v1(p_outcomes) s;
  return query
    select c.*, case when c.lanes is not null then v_settled end
    from sluice.claim_v1(p_lanes, p_owner, p_replica, p_claim, p_not_after, p_lease_seconds, false) c;
end $$;
