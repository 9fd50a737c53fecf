-- The limits that a task names: [{"name", "key"?, "cost"?}], without what is the default.
create function sluice.read_uses_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
declare v_uses jsonb := '[]'; v_use jsonb; v_name text; v_names text[] := '{}'; v_key text; v_cost numeric; v_at text;
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'array' then
    perform sluice.refuse_v1('invalid', p_where, 'expected an array');
  elsif jsonb_array_length(p_value) > 4 then
    perform sluice.refuse_v1('invalid', p_where, 'has more than 4 items');
  end if;
  for v_use, v_at in
    select u.value, p_where || '/' || u.n - 1 from jsonb_array_elements(p_value) with ordinality u(value, n) order by u.n
  loop
    perform sluice.read_members_v1(v_use, v_at, array['name', 'key', 'cost']);
    v_name := sluice.read_name_v1(coalesce(v_use -> 'name', 'null'), v_at || '/name');
    v_key := sluice.read_key_v1(nullif(v_use -> 'key', 'null'), v_at || '/key');
    v_cost := sluice.read_number_v1(v_use -> 'cost', v_at || '/cost', 1, 1000000, true);
    if v_name = any(v_names) then
      perform sluice.refuse_v1('invalid', v_at, format('names limit %s a second time; keep one', v_name));
    end if;
    v_names := v_names || v_name;
    v_uses := v_uses || jsonb_build_array(jsonb_strip_nulls(
      jsonb_build_object('name', v_name, 'key', nullif(v_key, 'task'), 'cost', nullif(v_cost, 1))));
  end loop;
  return nullif(v_uses, '[]');
end $$;
