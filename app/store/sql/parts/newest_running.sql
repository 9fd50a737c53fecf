-- `offset 0` as in newest_of_batch: running tasks are never many.
(select t.id, '{table}' as side, ({fits}) as fits, 0::bigint as part
 from (select t.* from sluice.{table} t where t.state = :state_running and t.tenant_id = $1{within} offset 0) t
 where t.id {beyond} $2::uuid order by t.id {order} limit {rows})
