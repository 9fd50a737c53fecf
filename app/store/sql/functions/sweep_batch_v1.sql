-- Cancel up to p_limit unfinished tasks of a batch that is marked as cancelled. Returns {"done": bool, "reason"?: why, "tasks": [what
-- cancel_v1 returns for each], "called"?: [what call_back_v1 says]}; done: none is left, and the batch is not swept again.
-- Rows locked by others are skipped, unless p_wait. Before it reports done, it waits for whoever is adding to the batch: they may
-- have read, under the shared lock, that it was not marked yet.
create function sluice.sweep_batch_v1(p_batch uuid, p_limit integer, p_wait boolean)
returns jsonb language plpgsql volatile
as $$
declare v_batch record; v_ids uuid[]; v_tasks jsonb; v_called jsonb;
begin
  select b.tenant_id, b.cancel_reason into v_batch from sluice.batches b
  where b.id = p_batch and b.cancelled_at is not null and not b.swept;
  if not found then return '{"done": true, "tasks": []}'; end if;
  if p_wait then
    perform set_config('lock_timeout', '500', true);  -- as in cancel_v1
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.tasks t where t.batch_id = p_batch order by t.id limit p_limit for update) l;
  else
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.tasks t where t.batch_id = p_batch order by t.id limit p_limit for update skip locked) l;
  end if;
  if v_ids is not null then
    select jsonb_agg(to_jsonb(c) - 'callbacks') filter (where c.task_id is not null), jsonb_agg(c.callbacks) filter (where c.task_id is null)
      into v_tasks, v_called
    from sluice.cancel_v1(v_batch.tenant_id, v_ids, v_batch.cancel_reason) c;
    return jsonb_build_object('done', false, 'reason', v_batch.cancel_reason, 'tasks', coalesce(v_tasks, '[]'), 'called', coalesce(v_called, '[]'));
  end if;
  perform pg_advisory_xact_lock(:lock_batch, hashtext(p_batch::text));
  if exists (select from sluice.tasks t where t.batch_id = p_batch) then return '{"done": false, "tasks": []}'; end if;
  update sluice.batches b set swept = true where b.id = p_batch;
  return '{"done": true, "tasks": []}';
end $$;
