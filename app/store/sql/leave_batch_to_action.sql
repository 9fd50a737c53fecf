-- Keep the sweeper from a batch that an action empties.
update sluice.batches b set swept = true where b.id = $1
