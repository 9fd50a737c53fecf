-- Check the key and the limits of a task for a queue and the handler that will deliver it: what app/domain/limits.py has in task_errors.
create function sluice.check_limits_v1(p_queue bigint, p_handler bigint, p_entry sluice.entry_v1, p_where text) returns void
language plpgsql stable
as $$
declare
  v_key text := p_entry.options ->> 'key'; v_own jsonb := coalesce(p_entry.options -> 'limits', '[]'); v_shared jsonb; v_use record; v_count integer;
  v_rules sluice.limits;
begin
  select * into v_rules from sluice.limits l where l.owner_id = p_queue and l.kind = 'queue_key';
  if v_key is null and v_rules.required then
    perform sluice.refuse_v1('invalid', p_where || '/key', 'is required: the queue runs by key');
  end if;
  for v_use in
    select u.value ->> 'name' as name, u.value ->> 'key' as key, coalesce((u.value ->> 'cost')::integer, 1) as cost,
           p_where || '/limits/' || u.n - 1 as at, l.id, l.keyed,
           case when l.rate_limit is not null
             then coalesce(l.rate_burst, greatest(1, l.rate_limit / l.rate_period_seconds * 0.1)) end as capacity
    from jsonb_array_elements(v_own) with ordinality u(value, n)
    join sluice.queues q on q.id = p_queue
    left join sluice.limits l on l.tenant_id = q.tenant_id and l.name = u.value ->> 'name' order by u.n
  loop
    if v_use.id is null then
      perform sluice.refuse_v1('invalid', v_use.at || '/name', format('there is no limit %s; PUT /limits/%1$s creates it', v_use.name));
    elsif v_use.key is not null and not v_use.keyed then
      perform sluice.refuse_v1('invalid', v_use.at || '/key', format('limit %s is not keyed; leave the key out', v_use.name));
    elsif v_use.key is null and v_key is null and v_use.keyed then
      perform sluice.refuse_v1('invalid', v_use.at || '/key',
                               format('is required: limit %s is keyed, and the task has no key', v_use.name));
    elsif v_use.cost > v_use.capacity then
      perform sluice.refuse_v1('invalid', v_use.at || '/cost', format(
        'is above the burst of limit %s, %s, so it could never start', v_use.name, floor(v_use.capacity)));
    end if;
  end loop;
  -- what the queue and the handler make its tasks take; of two with one name, the queue's counts
  select coalesce(jsonb_object_agg(u.value ->> 'name', u.value -> 'key' order by u.turn), '{}') into v_shared
  from (select h.limits, 1 as turn from sluice.handlers h where h.id = p_handler
        union all select q.limits, 2 from sluice.queues q where q.id = p_queue) d
  cross join lateral (select e.value, d.turn from jsonb_array_elements(d.limits) e) u
  where not v_own @> jsonb_build_array(jsonb_build_object('name', u.value -> 'name'));
  if v_key is null then
    select s.key as name into v_use
    from jsonb_each(v_shared) s join sluice.queues q on q.id = p_queue
    join sluice.limits l on l.tenant_id = q.tenant_id and l.name = s.key and l.keyed
    where coalesce(s.value, 'null') = 'null' limit 1;
    if found then
      perform sluice.refuse_v1('invalid', p_where || '/key',
                               format('is required: all tasks here take the keyed limit %s', v_use.name));
    end if;
  end if;
  v_count := jsonb_array_length(v_own) + (select count(*) from jsonb_object_keys(v_shared))
    + (v_key is not null and coalesce(v_rules.ordered or v_rules.max_concurrency is not null or v_rules.rate_limit is not null, false))::integer;
  if v_count > 4 then
    perform sluice.refuse_v1('invalid', p_where || '/limits',
                             format('the task would take %s named or keyed limits, at most 4 are allowed', v_count));
  end if;
end $$;
