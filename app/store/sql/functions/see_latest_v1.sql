-- Fail with a serialization failure if these rows have changed since the snapshot of a transaction above read committed: one of them may
-- be deleted. They are locked for that, which holds up claims, so the lock is given back at once, with the inner block.
create function sluice.see_latest_v1(p_table regclass, p_ids bigint[]) returns void language plpgsql volatile
as $$
begin
  if current_setting('transaction_isolation') = 'read committed' then return; end if;
  begin
    execute format('select 1 from %s t where t.id = any($1) order by t.id for share', p_table) using p_ids;
    raise exception using errcode = 'SL001', message = 'given back';
  exception when sqlstate 'SL001' then null;
  end;
end $$;
