-- A number within bounds, without trailing zeros; with p_whole an integer, with p_above greater than the lower bound.
create function sluice.read_number_v1(
  p_value jsonb, p_where text, p_low numeric, p_high numeric, p_whole boolean default false, p_above boolean default false)
returns numeric language plpgsql stable
as $$
declare v_number numeric;
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) = 'number' then v_number := p_value::numeric; end if;
  if v_number is null or v_number < p_low or v_number > p_high or p_above and v_number = p_low or p_whole and scale(v_number) > 0 then
    perform sluice.refuse_v1('invalid', p_where, format('expected %s %s %s to %s', case when p_whole then 'an integer' else 'a number' end,
                                                        case when p_above then 'above' else 'from' end, p_low, p_high));
  end if;
  -- as the service computes: with 53 bits, in which what is below the smallest number is 0
  return case when p_whole then v_number when v_number < 3e-324 then 0 else trim_scale(v_number::double precision::text::numeric) end;
end $$;
