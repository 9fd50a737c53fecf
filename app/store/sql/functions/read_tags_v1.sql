-- Up to ten different tags.
create function sluice.read_tags_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'array' then
    perform sluice.refuse_v1('invalid', p_where, 'expected an array');
  elsif jsonb_array_length(p_value) > 10 then
    perform sluice.refuse_v1('invalid', p_where, 'has more than 10 items');
  end if;
  perform sluice.read_text_v1(t.value, p_where || '/' || t.n - 1, 100) from jsonb_array_elements(p_value) with ordinality t(value, n);
  if (select count(distinct t) from jsonb_array_elements(p_value) t) < jsonb_array_length(p_value) then
    perform sluice.refuse_v1('invalid', p_where, 'contains the same tag twice');
  end if;
  return nullif(p_value, '[]');
end $$;
