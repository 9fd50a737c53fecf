-- Rates and percentiles look back so many hours, and no further.
delete from sluice.queue_minutes where minute < statement_timestamp() - make_interval(hours => $1)
