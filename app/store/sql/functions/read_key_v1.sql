-- A key: 1 to 128 bytes of UTF-8.
create function sluice.read_key_v1(p_value jsonb, p_where text) returns text language plpgsql stable
as $$
declare v_key text := sluice.read_text_v1(p_value, p_where, 128);
begin
  if octet_length(v_key) > 128 then
    perform sluice.refuse_v1('invalid', p_where, 'is longer than 128 bytes of UTF-8');
  end if;
  return v_key;
end $$;
