-- By compare-and-set on the key that wraps it: of replicas that get an encryption key at the same time, the first wraps the data key.
update sluice.keyring set data_key = $1, wrapped_by = $2 where wrapped_by is not distinct from $3 returning true
