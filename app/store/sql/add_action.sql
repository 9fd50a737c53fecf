-- An action, as it was asked for, unless the same API key has started one under the same idempotency key. What matches it is listed next.
insert into sluice.actions (id, tenant_id, kind, filter, search, run_at, priority, rate_per_second, most, reason, created_by, matched, created_at, idempotency_key)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict (tenant_id, coalesce(created_by, ''), idempotency_key) where idempotency_key is not null do nothing returning id
