-- Check the size of a payload: every replica says in its heartbeat what it takes, and the least of them counts.
create function sluice.check_size_v1(p_bytes integer, p_where text) returns void language plpgsql stable
as $$
declare v_most integer;
begin
  select coalesce(min(r.max_payload_bytes), 1048576) into v_most from sluice.replicas r
  where r.seen_at > clock_timestamp() - interval '10 seconds';
  if p_bytes > v_most then
    perform sluice.refuse_v1('too_large', p_where, format('the payload has %s bytes, at most %s are allowed', p_bytes, v_most));
  end if;
end $$;
