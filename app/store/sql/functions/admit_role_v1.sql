-- Let a role of the database call sluice.enqueue and sluice.enqueue_many, or no longer, and nothing else of the schema.
create function sluice.admit_role_v1(p_role text, p_admitted boolean) returns void language plpgsql volatile
as $$
declare v_function regprocedure;
begin
  execute format(case when p_admitted then 'grant usage on schema sluice to %I' else 'revoke usage on schema sluice from %I' end, p_role);
  foreach v_function in array array['sluice.enqueue(text, text, jsonb)', 'sluice.enqueue(text, jsonb, jsonb)',
                                    'sluice.enqueue_many(text, jsonb[])']::regprocedure[] loop
    execute format(case when p_admitted then 'grant execute on function %s to %I' else 'revoke execute on function %s from %I' end,
                   v_function, p_role);
  end loop;
end $$;
