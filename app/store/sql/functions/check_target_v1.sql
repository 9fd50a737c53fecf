-- Check a task's target against the handler that will deliver it, as app/domain/targets.py has it in address_of.
create function sluice.check_target_v1(p_target jsonb, p_handler bigint, p_queue text, p_where text) returns void
language plpgsql stable
as $$
declare v_handler record;
begin
  if p_target is null then return; end if;
  select h.url, h.targets into v_handler from sluice.handlers h where h.id = p_handler;
  if not found then
    perform sluice.refuse_v1('invalid', p_where,
                             format('queue %s is for pull workers, so its tasks cannot say where to deliver them', p_queue));
  elsif v_handler.targets = 'own' then
    perform sluice.refuse_v1('invalid', p_where,
                             'is not allowed by the task''s handler, whose `targets` is own; make it path or any');
  elsif length(v_handler.url) + coalesce(length(p_target ->> 'path'), 0) >= 2048 then
    perform sluice.refuse_v1('invalid', p_where || '/path', 'and the handler''s URL together are longer than 2048 characters');
  end if;
end $$;
