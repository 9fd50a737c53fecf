-- The entry that a task's document makes, without its queue and handler: the rules that app/domain/tasks.py has for a body. The payload
-- has been read. The second half of the fingerprint is what the service computes for the same task (plain_fingerprint); the first is
-- computed with a key that only the service has, so nothing matches it.
create function sluice.read_task_v1(p_task jsonb, p_payload bytea, p_where text) returns sluice.entry_v1 language plpgsql stable
as $$
declare
  c_known constant text[] := array['payload', 'payload_base64', 'content_type', 'type', 'delay_seconds', 'run_at', 'ttl_seconds',
    'expires_at', 'priority', 'idempotency_key', 'unique_key', 'on_duplicate', 'debounce_max_seconds', 'retry', 'timeout_seconds',
    'correlation_id', 'headers', 'tags', 'handler', 'target', 'key', 'limits', 'callbacks'];
  v_entry sluice.entry_v1; v jsonb := sluice.read_members_v1(p_task, p_where, c_known); v_carried jsonb; v_callbacks jsonb;
  v_said jsonb; v_name text;
begin
  if p_task - 'payload' = '{}' then
    v_entry.payload := p_payload; v_entry.priority := 0;
    return v_entry;
  end if;
  if p_task -> 'priority' = 'null' then
    perform sluice.refuse_v1('invalid', p_where || '/priority', 'expected an integer from -100 to 100');
  end if;
  v_entry.payload := p_payload;
  v_entry.priority := coalesce(sluice.read_number_v1(v -> 'priority', p_where || '/priority', -100, 100, true), 0);
  v_entry.delay_seconds := sluice.read_number_v1(v -> 'delay_seconds', p_where || '/delay_seconds', 0, 366 * 86400);
  v_entry.ttl_seconds := sluice.read_number_v1(v -> 'ttl_seconds', p_where || '/ttl_seconds', 0, 3660 * 86400, false, true);
  v_entry.debounce_max_seconds := sluice.read_number_v1(
    v -> 'debounce_max_seconds', p_where || '/debounce_max_seconds', 0, 366 * 86400);
  v_entry.run_at := sluice.read_instant_v1(v -> 'run_at', p_where || '/run_at');
  v_entry.expires_at := sluice.read_instant_v1(v -> 'expires_at', p_where || '/expires_at');
  v_entry.key := sluice.read_text_v1(v -> 'idempotency_key', p_where || '/idempotency_key', 255, true);
  v_entry.unique_key := sluice.read_text_v1(v -> 'unique_key', p_where || '/unique_key', 255);
  if v -> 'on_duplicate' not in ('"keep"', '"replace"', '"postpone"') then
    perform sluice.refuse_v1('invalid', p_where || '/on_duplicate', 'expected one of keep, replace, postpone');
  end if;
  v_entry.on_duplicate := nullif(v ->> 'on_duplicate', 'keep');
  foreach v_name in array array['delay_seconds run_at', 'ttl_seconds expires_at'] loop
    if v ?& string_to_array(v_name, ' ') then
      perform sluice.refuse_v1('invalid', p_where || '/' || split_part(v_name, ' ', 2),
                               format('cannot be combined with %s; send one of them', split_part(v_name, ' ', 1)));
    end if;
  end loop;
  if v_entry.on_duplicate is not null and v_entry.unique_key is null then
    perform sluice.refuse_v1('invalid', p_where || '/on_duplicate', 'is about tasks with the same unique_key; send one');
  elsif v_entry.debounce_max_seconds is not null and v_entry.on_duplicate is distinct from 'postpone' then
    perform sluice.refuse_v1('invalid', p_where || '/debounce_max_seconds', 'applies only with on_duplicate postpone');
  end if;
  v_carried := jsonb_strip_nulls(jsonb_build_object(
    'type', sluice.read_text_v1(v -> 'type', p_where || '/type', 255, true),
    'headers', sluice.read_headers_v1(v -> 'headers', p_where || '/headers'),
    'tags', sluice.read_tags_v1(v -> 'tags', p_where || '/tags'),
    'correlation_id', sluice.read_text_v1(v -> 'correlation_id', p_where || '/correlation_id', 255, true),
    'retry', sluice.read_retry_v1(v -> 'retry', p_where || '/retry'),
    'timeout_seconds', sluice.read_number_v1(v -> 'timeout_seconds', p_where || '/timeout_seconds', 0.1, 43200),
    'target', sluice.read_target_v1(v -> 'target', p_where || '/target'),
    'content_type', sluice.read_content_type_v1(v, p_where),
    'binary', case when v ? 'payload_base64' then true end,
    'key', sluice.read_key_v1(v -> 'key', p_where || '/key'),
    'limits', sluice.read_uses_v1(v -> 'limits', p_where || '/limits')));
  v_callbacks := sluice.read_callbacks_v1(v -> 'callbacks', p_where || '/callbacks');
  if v_callbacks is not null then v_carried := v_carried || jsonb_build_object('callbacks', v_callbacks); end if;
  v_entry.max_attempts := (v_carried #> '{retry,max_attempts}')::integer;
  v_entry.options := nullif(v_carried, '{}');
  if v_entry.key is not null then
    v_said := v_carried || jsonb_strip_nulls(jsonb_build_object(
      'delay_seconds', nullif(v_entry.delay_seconds, 0), 'ttl_seconds', v_entry.ttl_seconds, 'priority', nullif(v_entry.priority, 0),
      'debounce_max_seconds', nullif(v_entry.debounce_max_seconds, 0), 'unique_key', v_entry.unique_key,
      'on_duplicate', v_entry.on_duplicate, 'handler', v ->> 'handler',
      'run_at', sluice.show_instant_v1(v_entry.run_at), 'expires_at', sluice.show_instant_v1(v_entry.expires_at)));
    v_entry.fingerprint := decode(repeat('00', 32), 'hex')
      || sha256(p_payload || '\x00' || convert_to(case when v_said -> 'retry' = '{}' then v_said - 'retry' else v_said end::text, 'UTF8'));
  end if;
  return v_entry;
end $$;
