-- Rates and percentiles look back $1 hours at most.
delete from sluice.queue_minutes where minute < statement_timestamp() - make_interval(hours => $1)
