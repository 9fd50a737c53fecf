-- The content type of a task's payload as it is stored: null for application/json, which is the default of JSON.
create function sluice.read_content_type_v1(p_task jsonb, p_where text) returns text language plpgsql stable
as $$
declare
  c_media_type constant text := '^([!#$%&''*+.^_`|~0-9A-Za-z-]+/[!#$%&''*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[!#$%&''*+.^_`|~0-9A-Za-z-]+='
    || '(?:[!#$%&''*+.^_`|~0-9A-Za-z-]+|"(?:[\t\u0020\u0021\u0023-\u005b\u005d-\u007e]|\\[\t\u0020-\u007e])*"))*$';
  v_type text := sluice.read_text_v1(p_task -> 'content_type', p_where || '/content_type', 1048576); v_named text;
begin
  if v_type is null then return case when p_task ? 'payload_base64' then 'application/octet-stream' end; end if;
  v_named := lower((regexp_match(v_type, c_media_type))[1]);
  if v_named is null or length(v_type) > 255 or v_type ~ '\n' then
    perform sluice.refuse_v1('invalid', p_where || '/content_type',
                             'is not a media type such as application/json, of at most 255 characters');
  elsif not p_task ? 'payload_base64' and v_named <> 'application/json' and v_named not like '%+json' then
    perform sluice.refuse_v1('invalid', p_where || '/content_type', 'must be application/json or end in +json beside payload');
  end if;
  return case when p_task ? 'payload_base64' or v_type <> 'application/json' then v_type end;
end $$;
