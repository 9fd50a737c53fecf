-- Seal a batch, and with a p_reason also mark it as cancelled; returns whether the tenant has such a batch. Once it returns,
-- nothing is added, because adders hold the shared lock. A completed batch without unfinished tasks is left as it is.
create function sluice.close_batch_v1(p_tenant bigint, p_id uuid, p_reason text)
returns boolean language plpgsql volatile
as $$
begin
  perform pg_advisory_xact_lock(:lock_batch, hashtext(p_id::text));
  if not exists (select from sluice.batches b where b.id = p_id and b.tenant_id = p_tenant) then return false; end if;
  update sluice.batches b set sealed = true,
    cancelled_at = case when p_reason is null then b.cancelled_at else coalesce(b.cancelled_at, clock_timestamp()) end,
    cancel_reason = coalesce(b.cancel_reason, p_reason),
    swept = b.swept and p_reason is null
  where b.id = p_id and case when p_reason is null then not b.sealed
    else b.completed_at is null or exists (select from sluice.tasks t where t.batch_id = p_id) end;
  if found then
    insert into sluice.batch_deltas (tenant_id, batch_id) values (p_tenant, p_id);  -- so that the fold checks it
  end if;
  return true;
end $$;
