-- An instant as Python writes it in UTC: without a fraction where it is zero.
create function sluice.show_instant_v1(p_at timestamptz) returns text language sql stable
as $$
  select replace(to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000Z', 'Z')
$$;
