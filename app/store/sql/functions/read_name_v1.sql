-- A name of a queue, a handler or a limit.
create function sluice.read_name_v1(p_value jsonb, p_where text) returns text language plpgsql stable
as $$
declare v_name text := p_value #>> '{}';
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'string' or v_name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' or v_name ~ '\n' then
    perform sluice.refuse_v1('invalid', p_where, 'is not a name (1-100 of A-Z a-z 0-9 . _ -, starting with a letter or digit)');
  end if;
  return v_name;
end $$;
