-- An action, as it was asked for. What matches it is listed next.
insert into sluice.actions (id, tenant_id, kind, filter, search, run_at, priority, rate_per_second, most, reason, created_by, matched, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
