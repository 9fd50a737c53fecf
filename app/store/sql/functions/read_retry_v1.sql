-- A partial retry policy: what app/domain/retries.py lets through, with its numbers in their shortest form.
create function sluice.read_retry_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
declare c_most constant integer := 2592000; v_backoff jsonb; v_kind jsonb; v_at text := p_where || '/backoff'; v_steps jsonb; v_name text;
begin
  if p_value is null then return null; end if;
  perform sluice.read_members_v1(p_value, p_where, array['max_attempts', 'retry_after_max_seconds', 'backoff']);
  if p_value ? 'max_attempts' then
    p_value := p_value || jsonb_build_object('max_attempts', sluice.read_number_v1(p_value -> 'max_attempts', p_where || '/max_attempts', 1, 1000, true));
  end if;
  if p_value ? 'retry_after_max_seconds' then
    p_value := p_value || jsonb_build_object('retry_after_max_seconds', sluice.read_number_v1(
      p_value -> 'retry_after_max_seconds', p_where || '/retry_after_max_seconds', 0, c_most));
  end if;
  v_backoff := p_value -> 'backoff';
  if v_backoff is null then return p_value; end if;
  if jsonb_typeof(v_backoff) <> 'object' then perform sluice.refuse_v1('invalid', v_at, 'expected an object'); end if;
  v_steps := v_backoff -> 'seconds';
  v_kind := coalesce(v_backoff -> 'kind', to_jsonb(case when v_steps is null then 'exponential'
                                                        when jsonb_typeof(v_steps) = 'array' then 'list' else 'fixed' end));
  if v_kind not in ('"exponential"', '"fixed"', '"list"') then
    perform sluice.refuse_v1('invalid', v_at || '/kind', 'expected one of exponential, fixed, list');
  elsif v_kind <> '"exponential"' then
    perform sluice.read_members_v1(v_backoff, v_at, array['kind', 'seconds']);
    if v_kind = '"list"' then
      if jsonb_typeof(v_steps) is distinct from 'array' or jsonb_array_length(v_steps) not between 1 and 100 then
        perform sluice.refuse_v1('invalid', v_at || '/seconds', 'expected a list of 1 to 100 numbers');
      end if;
      v_steps := (select jsonb_agg(sluice.read_number_v1(s.value, v_at || '/seconds/' || s.n - 1, 0, c_most) order by s.n)
                  from jsonb_array_elements(v_steps) with ordinality s(value, n));
    else
      v_steps := to_jsonb(sluice.read_number_v1(coalesce(v_steps, 'null'), v_at || '/seconds', 0, c_most));
    end if;
    v_backoff := v_backoff || jsonb_build_object('seconds', v_steps);
  else
    perform sluice.read_members_v1(v_backoff, v_at, array['kind', 'min_seconds', 'max_seconds', 'factor', 'jitter']);
    foreach v_name in array array['min_seconds', 'max_seconds', 'factor'] loop
      if v_backoff ? v_name then
        v_backoff := v_backoff || jsonb_build_object(v_name, sluice.read_number_v1(
          v_backoff -> v_name, v_at || '/' || v_name, case v_name when 'factor' then 1 else 0 end, case v_name when 'factor' then 100 else c_most end));
      end if;
    end loop;
    if (v_backoff ->> 'min_seconds')::numeric > (v_backoff ->> 'max_seconds')::numeric then
      perform sluice.refuse_v1('invalid', v_at || '/min_seconds', 'must not exceed max_seconds');
    elsif v_backoff ? 'jitter' and v_backoff -> 'jitter' not in ('"full"', '"equal"', '"none"') then
      perform sluice.refuse_v1('invalid', v_at || '/jitter', 'expected one of full, equal, none');
    end if;
  end if;
  return p_value || jsonb_build_object('backoff', v_backoff);
end $$;
