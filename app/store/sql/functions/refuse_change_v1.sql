-- Refuse to change or remove rows of the table. A trigger, because privileges would not bind a role that owns its tables.
create function sluice.refuse_change_v1() returns trigger language plpgsql volatile
as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;
