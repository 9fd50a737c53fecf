-- In a later statement than add_data_key: the key that is there may be another replica's.
select data_key, wrapped from sluice.keyring
