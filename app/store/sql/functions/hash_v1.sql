-- 64 bits that nobody finds another text for: what names flows and buckets without a lookup, across tenants. Texts become bytes in
-- the only way that Postgres takes for immutable.
create function sluice.hash_v1(p_text text) returns bigint language sql immutable strict parallel safe
begin atomic
  select ('x' || encode(substr(sha256(decode(replace(p_text, '\', '\\'), 'escape')), 1, 8), 'hex'))::bit(64)::bigint;
end;
