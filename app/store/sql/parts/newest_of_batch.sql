-- `offset 0` reads the batch's rows first, whatever the other conditions. With a limit or a bound on ids, the planner might
-- prefer to scan all tasks for them.
(select t.id, '{table}' as side, ({fits}) as fits, 0::bigint as part
 from (select t.* from sluice.{table} t where {batch} and t.id {beyond} $2::uuid order by t.id {order} offset 0) t
 where t.id {beyond} $2::uuid order by t.id {order} limit {rows})
