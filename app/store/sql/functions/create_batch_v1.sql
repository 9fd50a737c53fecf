-- Create an empty batch of a queue, with the task to enqueue when it completes, if any. Returns whether both queues are as the
-- caller read them; otherwise nothing is created. A batch without tasks to come is sealed, and the fold completes it.
create function sluice.create_batch_v1(
  p_id uuid, p_tenant bigint, p_queue bigint, p_version bigint, p_sealed boolean,
  p_then_queue bigint, p_then_version bigint, p_then_digest bytea, p_then_payload bytea, p_then_sealed_for text,
  p_then_type text)
returns boolean language plpgsql volatile
as $$
begin
  perform pg_advisory_xact_lock_shared(:lock_queue, s.q::integer)
    from (select distinct q from unnest(array[p_queue, p_then_queue]) q where q is not null order by q) s;
  if exists (select from unnest(array[p_queue, p_then_queue], array[p_version, p_then_version]) i(id, version)
             left join sluice.queues q on q.id = i.id
             where i.id is not null and (q.id is null or q.version <> i.version or q.deleted_at is not null)) then
    return false;
  end if;
  insert into sluice.batches (id, tenant_id, queue_id, sealed) values (p_id, p_tenant, p_queue, p_sealed) on conflict do nothing;
  if found then  -- otherwise the first answer was lost
    insert into sluice.batch_completions (batch_id, digest, queue_id, payload, sealed_for, type)
    select p_id, p_then_digest, p_then_queue, p_then_payload, p_then_sealed_for, p_then_type
    where p_then_queue is not null;
    insert into sluice.batch_deltas (tenant_id, batch_id) select p_tenant, p_id where p_sealed;
  end if;
  return true;
end $$;
