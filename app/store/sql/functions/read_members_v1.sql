-- The members of a JSON object that are not null, all of them known.
create function sluice.read_members_v1(p_value jsonb, p_where text, p_known text[]) returns jsonb language plpgsql stable
as $$
declare v_name text;
begin
  if jsonb_typeof(p_value) <> 'object' then
    perform sluice.refuse_v1('invalid', p_where, 'expected an object');
  end if;
  select k into v_name from jsonb_object_keys(p_value) k where k <> all(p_known) limit 1;
  if found then
    perform sluice.refuse_v1('invalid', p_where || '/' || replace(replace(v_name, '~', '~0'), '/', '~1'), 'unknown field');
  end if;
  return (select coalesce(jsonb_object_agg(m.key, m.value), '{}') from jsonb_each(p_value) m where m.value <> 'null');
end $$;
