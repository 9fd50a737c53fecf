-- The bucket of a limit: what it holds and admits under one key (null: of a limit that is not keyed).
create function sluice.bucket_v1(p_limit bigint, p_key text) returns bigint language sql immutable parallel safe
begin atomic
  select sluice.hash_v1(p_limit::text || ' ' || coalesce(p_key, ''));
end;
