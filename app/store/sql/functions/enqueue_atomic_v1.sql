-- Insert one group of tasks, all of it or nothing: where an item is neither created nor there already, nothing is written, no
-- receipt either, and the answer has "refused". Takes and answers what enqueue_v1 does. The inner block is a subtransaction:
-- raising ends it with all it wrote, while the verdicts stay in the variable.
create function sluice.enqueue_atomic_v1(
  p_group uuid, p_ids uuid[], p_queues bigint[], p_versions bigint[], p_handlers bigint[],
  p_payloads bytea[], p_keys text[], p_fingerprints bytea[], p_options text[], p_uniques text[] default null)
returns jsonb language plpgsql volatile
as $$
declare v_receipt jsonb;
begin
  begin
    v_receipt := sluice.enqueue_v1(p_group, p_ids, p_queues, p_versions, p_handlers, p_payloads, p_keys, p_fingerprints, p_options,
                                   p_uniques);
    if exists (select from jsonb_each(v_receipt -> 'verdicts') v where v.value ->> 0 not in ('replayed', 'held')) then
      raise exception using errcode = 'SL001', message = 'refused';
    end if;
  exception when sqlstate 'SL001' then
    v_receipt := v_receipt || '{"refused": true}';
  end;
  return v_receipt;
end $$;
