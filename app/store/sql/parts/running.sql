-- Whether a row of tasks counts as running: one whose lease has run out does not, reaped or not.
({row}.state = :state_running and ({row}.lease_expires_at <= clock_timestamp()) is not true)
