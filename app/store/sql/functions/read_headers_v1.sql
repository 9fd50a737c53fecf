-- Headers of a task: what app/domain/headers.py lets through. Names that differ only in case or punctuation count as the same name.
create function sluice.read_headers_v1(p_value jsonb, p_where text) returns jsonb language plpgsql stable
as $$
declare v_header record; v_seen text[] := '{}'; v_folded text; v_at text; v_problem text;
begin
  if p_value is null then return null; end if;
  if jsonb_typeof(p_value) <> 'object' then
    perform sluice.refuse_v1('invalid', p_where, 'expected an object');
  end if;
  for v_header in select m.key, m.value, m.value #>> '{}' as text from jsonb_each(p_value) m loop
    v_at := p_where || '/' || replace(replace(v_header.key, '~', '~0'), '/', '~1');
    v_folded := lower(regexp_replace(v_header.key, '[[:punct:]]', '-', 'g') collate "C");
    v_problem := case
      when jsonb_typeof(v_header.value) <> 'string' then 'expected a string'
      when length(v_header.key) > 100 or v_header.key !~ '^[-!#$%&''*+.^_`|~0-9A-Za-z]+$' or v_header.key ~ '\n'
        then 'is not a header name (an HTTP token of 1-100 characters)'
      when v_folded ~ '^(content|webhook|sluice|proxy)-' or v_folded in (
        'host', 'connection', 'transfer-encoding', 'traceparent', 'tracestate', 'baggage', 'keep-alive', 'te', 'trailer', 'upgrade', 'expect',
        'http2-settings', 'accept-encoding', 'idempotency-key', 'x-correlation-id')
        then 'is reserved: Sluice sets it itself; choose another name'
      when length(v_header.text) > 4096 then 'is longer than 4096 characters'
      when v_header.text <> '' and (v_header.text !~ '^[\u0021-\u007e]([\u0020-\u007e\t]*[\u0021-\u007e])?$' or v_header.text ~ '\n')
        then 'must be printable ASCII without leading or trailing spaces'
      when v_folded = any(v_seen)
        then 'is given twice: a handler may ignore case and punctuation in header names; keep one'
    end;
    if v_problem is not null then perform sluice.refuse_v1('invalid', v_at, v_problem); end if;
    v_seen := v_seen || v_folded;
  end loop;
  if cardinality(v_seen) > 50 then
    perform sluice.refuse_v1('invalid', p_where, format('has %s headers, at most 50 are allowed', cardinality(v_seen)));
  elsif (select sum(length(m.key) + length(m.value)) from jsonb_each_text(p_value) m) > 16384 then
    perform sluice.refuse_v1('invalid', p_where, 'is longer than 16384 characters');
  end if;
  return nullif(p_value, '{}');
end $$;
