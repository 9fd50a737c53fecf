-- Where and how a task is delivered: what app/domain/targets.py lets through, without null members. A URL is refused: whether calls may go there is a setting of the service.
create function sluice.read_target_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
declare v_target jsonb; v_path text; v_steps text; v_problem text;
begin
  if p_value is null then return null; end if;
  v_target := sluice.read_members_v1(p_value, p_where, array['path', 'url', 'method', 'headers']);
  if v_target ? 'url' then
    perform sluice.refuse_v1('needs_service', p_where || '/url', 'whether calls may go to a URL is decided by the service',
                             'enqueue over HTTP, or name a path below the handler''s URL');
  end if;
  v_path := sluice.read_text_v1(v_target -> 'path', p_where || '/path', 2048);
  v_steps := split_part(v_path, '?', 1);
  v_problem := case
    when v_path !~ '^[\u0021-\u007e]+$' or v_path like '%\\%' or v_path ~ '\n'
      then 'must be printable ASCII without spaces or backslashes; percent-encode everything else'
    when v_path like '%#%' then 'must not contain a fragment'
    when v_path like '//%' or v_path ~ '^[A-Za-z][A-Za-z0-9+.-]*:' then 'must not contain a scheme or a host; it begins with / or ?'
    when v_path ~ '%(?![0-9A-Fa-f]{2})' then 'has a % that two hexadecimal digits do not follow; percent-encode it as %25'
    when v_steps ~* '%(2f|5c|25[0-9a-f]{2}|[01][0-9a-f]|7f)'
      then 'must not contain an encoded slash, backslash or control character, not even encoded twice'
    when v_steps ~* '(^|/)(\.|%2e){2}($|/|;|%3b)' then 'must not contain ..'
  end;
  if v_problem is not null then perform sluice.refuse_v1('invalid', p_where || '/path', v_problem); end if;
  if p_value ? 'method' and p_value -> 'method' not in ('"GET"', '"HEAD"', '"POST"', '"PUT"', '"PATCH"', '"DELETE"', '"OPTIONS"') then
    perform sluice.refuse_v1('invalid', p_where || '/method', 'expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS');
  end if;
  return jsonb_strip_nulls(jsonb_build_object('method', 'POST') || v_target
    || jsonb_build_object('headers', sluice.read_headers_v1(v_target -> 'headers', p_where || '/headers')));
end $$;
