-- Once: of replicas that are given an encryption key at the same time, the first wraps.
update sluice.keyring set data_key = $1, wrapped = true where not wrapped
