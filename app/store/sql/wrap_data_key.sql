-- Happens once: of replicas that get an encryption key at the same time, the first wraps the data key.
update sluice.keyring set data_key = $1, wrapped = true where not wrapped
