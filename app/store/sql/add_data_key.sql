-- The first replica to start makes the data key; whatever the others make is dropped.
insert into sluice.keyring (data_key, wrapped) values ($1, $2) on conflict do nothing
