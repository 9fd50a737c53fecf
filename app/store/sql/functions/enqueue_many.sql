-- Enqueue up to 10,000 tasks in the caller's transaction, all or none: each is an object with its payload and its options. Returns their
-- ids in the same order. They are inserted in the order of their keys, so that two such calls do not wait for each other in a circle.
create function sluice.enqueue_many(queue text, tasks jsonb[]) returns setof uuid language plpgsql volatile
as $$
#variable_conflict use_variable
declare v_caller record; v_ids uuid[]; v_task record;
begin
  select * into v_caller from sluice.caller_v1();
  if tasks is null then
    perform sluice.refuse_v1('invalid', '/tasks', 'is required');
  elsif cardinality(tasks) > 10000 then
    perform sluice.refuse_v1('invalid', '/tasks', 'has more than 10000 items', 'enqueue them in several calls');
  end if;
  v_ids := array_fill(null::uuid, array[cardinality(tasks)]);
  for v_task in
    select t.body, t.n::integer as n from unnest(tasks) with ordinality t(body, n)
    order by t.body ->> 'idempotency_key' collate "C", t.body ->> 'unique_key' collate "C", t.n
  loop
    v_ids[v_task.n] := sluice.enqueue_here_v1(v_caller.tenant_id, v_caller.queues, queue, v_task.body, (v_task.body -> 'payload')::text,
                                              '/tasks/' || v_task.n - 1);
  end loop;
  return query select i from unnest(v_ids) with ordinality u(i, n) order by u.n;
end $$;
