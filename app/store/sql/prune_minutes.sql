-- Rates, percentiles and series look back $1 hours at most.
with of_tenants as (delete from sluice.tenant_minutes where minute < statement_timestamp() - make_interval(hours => $1))
delete from sluice.queue_minutes where minute < statement_timestamp() - make_interval(hours => $1)
