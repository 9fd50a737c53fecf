-- `offset 0` keeps further conditions out of the look-up by id: a partial index that fits one of them seems cheaper to the planner.
(select * from sluice.{table} where id = any($2::uuid[]) offset 0)
