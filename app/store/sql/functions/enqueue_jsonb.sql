-- The same with a payload of type jsonb, whose text Postgres has written: keys in its order, numbers and spaces in its form.
create function sluice.enqueue(queue text, payload jsonb, options jsonb default '{}') returns uuid language plpgsql volatile
as $$
#variable_conflict use_variable
declare v_caller record;
begin
  select * into v_caller from sluice.caller_v1();
  if options ? 'payload' then
    perform sluice.refuse_v1('invalid', '/payload', 'is the second argument; leave it out of the options');
  end if;
  return sluice.enqueue_here_v1(v_caller.tenant_id, v_caller.queues, queue, coalesce(options, '{}'), payload::text, '');
end $$;
