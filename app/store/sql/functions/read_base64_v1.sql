-- The bytes of a payload that came as base64 (RFC 4648, with its padding).
create function sluice.read_base64_v1(p_value jsonb, p_where text) returns bytea language plpgsql stable
as $$
declare v_text text := p_value #>> '{}';
begin
  if jsonb_typeof(p_value) <> 'string' then
    perform sluice.refuse_v1('invalid', p_where, 'expected a string');
  end if;
  perform sluice.check_size_v1(length(v_text) / 4 * 3 - (length(right(v_text, 2)) - length(replace(right(v_text, 2), '=', ''))), p_where);
  if v_text ~ '[^A-Za-z0-9+/=]' or v_text !~ '^[^=]*={0,2}$' or length(v_text) % 4 <> 0 then
    perform sluice.refuse_v1('invalid', p_where, 'is not base64 (RFC 4648, with its padding)');
  end if;
  return decode(v_text, 'base64');
end $$;
