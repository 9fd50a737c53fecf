-- Insert one group of tasks, all or nothing: if any item is neither created nor existing already, nothing is written, not even a
-- receipt, and the answer has "refused". Arguments and answer are those of enqueue_v1. The inner block is a subtransaction: raising
-- rolls back everything it wrote, while the verdicts stay in the variable.
create function sluice.enqueue_atomic_v1(p_group uuid, p_entries sluice.entry_v1[]) returns jsonb language plpgsql volatile
as $$
declare v_receipt jsonb;
begin
  begin
    v_receipt := sluice.enqueue_v1(p_group, p_entries);
    if exists (select from jsonb_each(v_receipt -> 'verdicts') v where v.value ->> 0 not in ('replayed', 'held', 'replaced')) then
      raise exception using errcode = 'SL001', message = 'refused';
    end if;
  exception when sqlstate 'SL001' then
    v_receipt := v_receipt || '{"refused": true}';
  end;
  return v_receipt;
end $$;
