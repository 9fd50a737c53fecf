-- Whether a row of tasks counts as running: not if its lease has expired, whether or not it has been reaped.
({row}.state = :state_running and ({row}.lease_expires_at <= clock_timestamp()) is not true)
