-- Refuse what a caller of sluice.enqueue asks for: p_code as over HTTP, under a SQLSTATE of its own; the detail is the JSON pointer of
-- what is wrong. Both are part of the interface (docs/reference/sql.md).
create function sluice.refuse_v1(p_code text, p_where text, p_message text, p_hint text default '') returns void language plpgsql stable
as $$
begin
  raise exception using message = p_code || ': ' || p_message, detail = p_where,
    hint = coalesce(nullif(p_hint, ''), 'docs/reference/sql.md says what each code means'), errcode = case p_code
    when 'malformed' then 'SL400' when 'forbidden' then '42501' when 'queue_not_found' then 'SL404'
    when 'idempotency_mismatch' then 'SL409' when 'too_large' then 'SL413' when 'invalid' then 'SL422'
    when 'needs_service' then 'SL423' when 'queue_full' then 'SL429' when 'key_full' then 'SL430' else 'SL503' end;
end $$;
