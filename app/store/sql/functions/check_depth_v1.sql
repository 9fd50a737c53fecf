-- Check that a queue, and a key of it, have room under their max_depth; a task that takes the place of a waiting one needs none, except
-- under a key that the other did not have. Tasks of transactions that are still open are not counted: to wait for them, as enqueue_v1
-- does, would hold up the queue for as long as they are.
create function sluice.check_depth_v1(p_queue sluice.queues, p_key text, p_new boolean, p_key_before text) returns void
language plpgsql volatile
as $$
declare v_count bigint; v_most integer;
begin
  if p_new and p_queue.max_depth is not null then
    select (select count(*) from sluice.tasks t where t.queue_id = p_queue.id and t.state = :state_ready and t.flow_id is null)
      + (select count(*) from sluice.tasks t where t.queue_id = p_queue.id and t.state = :state_ready and t.flow_id is not null)
      + (select count(*) from sluice.tasks t where t.queue_id = p_queue.id and t.state = :state_scheduled) into v_count;
    if v_count >= p_queue.max_depth then
      perform sluice.refuse_v1('queue_full', '', format('queue %s is full: it holds max_depth tasks', p_queue.name),
                               'try again when some have ended');
    end if;
  end if;
  if p_key is null or not p_new and p_key is not distinct from p_key_before then return; end if;
  select l.max_depth into v_most from sluice.limits l where l.owner_id = p_queue.id and l.kind = 'queue_key';
  if v_most is null then return; end if;
  select count(*) into v_count from (
    select from sluice.tasks t
    where t.queue_id = p_queue.id and t.options ->> 'key' = p_key and t.flow_id is not null and t.claims >= 0
      and t.state <> :state_running limit v_most) w;
  if v_count >= v_most then
    perform sluice.refuse_v1('key_full', '', format('key %s of queue %s is full: it holds max_depth tasks', p_key, p_queue.name),
                             'try again when some have ended');
  end if;
end $$;
