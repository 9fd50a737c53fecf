-- The first replica to start creates the data key; those of the others are dropped.
insert into sluice.keyring (data_key, wrapped_by) values ($1, $2) on conflict do nothing
