-- Those of these tasks that have ended or never existed. A scalar subquery, because `not exists` may be planned as a join over the
-- whole table.
select w.id from unnest($1::uuid[]) w(id) where (select t.id from sluice.tasks t where t.id = w.id) is null
