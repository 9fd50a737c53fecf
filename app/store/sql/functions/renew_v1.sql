-- Extend the leases that a dispatcher still holds; returns the tokens that it extended. It never shortens a lease (a hold may have
-- settled in between), never revives an expired one, and never lets one attempt last longer than seven days.
create function sluice.renew_v1(p_ids uuid[], p_tokens uuid[], p_lease_seconds double precision)
returns setof uuid language plpgsql volatile
as $$
declare v_now timestamptz;
begin
  perform 1 from (select t.id from sluice.tasks t where t.id = any(p_ids) order by t.id for update) l;
  v_now := clock_timestamp();
  return query
    update sluice.tasks t set renewed_at = v_now, lease_expires_at = greatest(t.lease_expires_at,
      least(v_now + make_interval(secs => p_lease_seconds), t.last_started_at + interval '7 days'))
    from unnest(p_ids, p_tokens) x(id, token)
    where t.id = x.id and t.lease_token = x.token and t.lease_expires_at > v_now
    returning t.lease_token;
end $$;
