-- `offset 0`: the rows of the batch first, whatever else is asked. With a limit in sight, or a bound of ids, the planner may prefer
-- to walk through all tasks for them.
(select t.id, '{table}' as side, ({fits}) as fits, 0::bigint as part
 from (select t.* from sluice.{table} t where {batch} and t.id < $2::uuid order by t.id desc offset 0) t
 where t.id < $2::uuid order by t.id desc limit {rows})
