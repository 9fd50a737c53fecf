-- The newest rows, each with whether it matches.
(select t.id, '{table}' as side, ({fits}) as fits, 0::bigint as part from sluice.{table} t
 where t.id {beyond} $2::uuid{within} order by t.id {order} limit {rows})
