-- Enqueue messages that cannot be tasks and end them at once, as dead with a reason each: nothing claims them in between. The answer is that
-- of enqueue_v1, with what call_back_v1 says of their ends. Run again with the same p_group, it writes nothing.
create function sluice.enqueue_dead_v1(p_group uuid, p_entries sluice.entry_v1[], p_errors text[])
returns jsonb language plpgsql volatile
as $$
declare v_receipt jsonb; v_ids uuid[];
begin
  v_receipt := sluice.enqueue_v1(p_group, p_entries);
  with created as (
    update sluice.tasks t set last_error = p_errors[e.ordinality]
    from unnest(p_entries) with ordinality e
    where t.id = e.task_id and not coalesce(v_receipt -> 'verdicts', '{}') ? e.ordinality::text and t.claims = 0
    returning t.id)
  select array_agg(c.id) into v_ids from created c;
  if v_ids is null then return v_receipt; end if;
  return v_receipt || jsonb_strip_nulls(jsonb_build_object('callbacks', sluice.bury_v1(
    v_ids, :state_dead::smallint, 'invalid_message', array_fill(clock_timestamp(), array[cardinality(v_ids)]))));
end $$;
