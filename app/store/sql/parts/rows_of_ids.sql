-- Rows by their ids, and by no other index, as a source.
(select * from sluice.{table} where id = {ids} offset 0)
