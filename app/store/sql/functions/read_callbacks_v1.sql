-- Callbacks of a task, complete, as app/domain/callbacks.py stores them: null for a state means none.
create function sluice.read_callbacks_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
declare v_callbacks jsonb := '{}'; v_state text; v_given jsonb; v_at text;
begin
  if p_value is null then return null; end if;
  perform sluice.read_members_v1(p_value, p_where, array['succeeded', 'dead', 'cancelled']);
  for v_state, v_given in select c.key, c.value from jsonb_each(p_value) c loop
    v_at := p_where || '/' || v_state;
    if v_given <> 'null' then
      perform sluice.read_members_v1(v_given, v_at, array['queue', 'body', 'type', 'target']);
      perform sluice.read_name_v1(coalesce(v_given -> 'queue', 'null'), v_at || '/queue');
      perform sluice.read_text_v1(nullif(v_given -> 'type', 'null'), v_at || '/type', 255, true);
      perform sluice.read_target_v1(nullif(v_given -> 'target', 'null'), v_at || '/target');
      if v_given ? 'body' and v_given -> 'body' not in ('"summary"', '"payload"') then
        perform sluice.refuse_v1('invalid', v_at || '/body', 'expected one of summary, payload');
      end if;
      v_given := '{"body": "summary", "type": null, "target": null}' || v_given || case
        when v_given -> 'target' <> 'null' then jsonb_build_object(
          'target', '{"path": null, "url": null, "method": "POST", "headers": null}' || (v_given -> 'target')) else '{}' end;
    end if;
    v_callbacks := v_callbacks || jsonb_build_object(v_state, v_given);
  end loop;
  return nullif(v_callbacks, '{}');
end $$;
