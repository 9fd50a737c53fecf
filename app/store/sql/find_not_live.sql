-- Those of these tasks that have ended, or never were. A scalar subquery, and not `not exists`: that may be planned as a join over the
-- whole table.
select w.id from unnest($1::uuid[]) w(id) where (select t.id from sluice.tasks t where t.id = w.id) is null
