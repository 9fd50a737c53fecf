-- The holder of a lease moves its end to p_seconds from now, later or earlier, and may report progress. Returns the new end, or no
-- row, and then fate_of_lease_v1 says why.
create function sluice.extend_lease_v1(p_id uuid, p_token uuid, p_seconds double precision, p_progress json)
returns timestamptz language sql volatile
as $$
  update sluice.tasks t set
    renewed_at = clock_timestamp(),
    lease_expires_at = least(clock_timestamp() + make_interval(secs => p_seconds), t.last_started_at + interval '7 days'),
    progress = coalesce(p_progress, t.progress)
  where t.id = p_id and t.lease_token = p_token and t.lease_expires_at > clock_timestamp()
  returning t.lease_expires_at
$$;
