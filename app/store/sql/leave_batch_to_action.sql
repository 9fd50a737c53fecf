update sluice.batches b set swept = true where b.id = $1
