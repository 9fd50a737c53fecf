-- Runs in a later statement than add_data_key, because the existing key may be another replica's.
select data_key, wrapped_by from sluice.keyring
