-- `offset 0` keeps further conditions out of the lookup by id; otherwise the planner may prefer a partial index that fits one of
-- them.
(select * from sluice.{table} where id = any($2::uuid[]) offset 0)
