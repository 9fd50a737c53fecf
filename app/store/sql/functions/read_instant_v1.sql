-- An RFC 3339 instant with an offset. Digits below a microsecond are dropped.
create function sluice.read_instant_v1(p_value jsonb, p_where text) returns timestamptz language plpgsql stable
as $$
declare
  c_first constant timestamptz := '0001-01-01 00:00:00+00'; c_last constant timestamptz := '9999-12-31 23:59:59.999999+00';
  v_text text := p_value #>> '{}'; v_at timestamptz;
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'string' then
    perform sluice.refuse_v1('invalid', p_where, 'expected a string');
  end if;
  if v_text ~ '^\d{4}-\d{2}-\d{2}[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,30})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$' and v_text !~ '\n' then
    begin
      v_at := regexp_replace(replace(replace(v_text, 't', 'T'), 'z', 'Z'), '(\.\d{6})\d+', '\1')::timestamptz;
    exception when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
      v_at := null;
    end;
  end if;
  if v_at is null or v_at < c_first or v_at > c_last then
    perform sluice.refuse_v1('invalid', p_where, 'expected an RFC 3339 instant with an offset');
  end if;
  return least(greatest(v_at, c_first + interval '1 microsecond'), c_last - interval '1 microsecond');
end $$;
