-- The bytes of a payload that is JSON: I-JSON (RFC 7493), nested at most 128 levels deep, without spaces around it. Raises what is wrong with it.
-- Duplicate keys show as more colons outside strings than jsonb keeps; the depth is how often the innermost brackets can be removed.
create function sluice.read_payload_v1(p_text text, p_where text) returns bytea language plpgsql stable
as $$
declare
  c_string constant text := '"(?:[^"\\]|\\.)*"'; c_most constant integer := 128;
  v_text text := btrim(p_text, E' \t\n\r'); v_safe text; v_bare text; v_kept text; v_depth integer := 0;
begin
  if p_text is null then
    perform sluice.refuse_v1('invalid', p_where, 'is required (null is a valid payload)', 'the JSON null is the text null');
  end if;
  perform sluice.check_size_v1(octet_length(v_text), p_where);
  v_safe := v_text;
  if v_text like '%\\%' then
    -- without escaped backslashes, every backslash begins an escape
    v_safe := replace(v_text, '\\', '\u005c');
    if regexp_replace(v_safe, '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '', 'g') ~ '\\u[dD][89a-fA-F][0-9a-fA-F]{2}' then
      perform sluice.refuse_v1('malformed', p_where, 'the payload has a lone surrogate');
    end if;
    -- jsonb cannot store \u0000, so a pair stands for it, and another for \u0001: no two keys become the same
    v_safe := replace(replace(v_safe, '\u0001', '\u0001\u0001'), '\u0000', '\u0001\u0002');
  end if;
  -- jsonb writes numbers out: 1e131071 has 131072 digits, and with 1e131072 it fails
  v_safe := regexp_replace(v_safe, '([0-9])[eE][+-]?[0-9]{3,}(?=[ \t\r\n,}\]]|$)', '\1', 'g');
  begin
    v_kept := v_safe::jsonb::text;
  exception when invalid_text_representation or untranslatable_character or numeric_value_out_of_range or statement_too_complex then
    perform sluice.refuse_v1('malformed', p_where, 'the payload is not I-JSON: ' || sqlerrm);
  end;
  v_bare := regexp_replace(v_safe, c_string, '', 'g');
  v_kept := regexp_replace(v_kept, c_string, '', 'g');
  if length(replace(v_bare, ':', '')) + length(v_kept) - length(replace(v_kept, ':', '')) < length(v_bare) then
    perform sluice.refuse_v1('malformed', p_where, 'the payload is not I-JSON: an object has the same key twice');
  end if;
  v_bare := translate(regexp_replace(v_kept, '[^][{}]', '', 'g'), '{}', '[]');
  while v_bare <> '' and v_depth <= c_most loop
    v_bare := replace(v_bare, '[]', '');
    v_depth := v_depth + 1;
  end loop;
  if v_depth > c_most then
    perform sluice.refuse_v1('malformed', p_where, format('the payload is nested deeper than %s levels', c_most));
  end if;
  return convert_to(v_text, 'UTF8');
end $$;
