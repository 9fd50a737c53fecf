-- A tenant, a handler and a queue for a rehearsal, in a transaction that is rolled back. Ids below zero are never given to others and
-- leave no gaps in the sequences.
with tenant as (insert into sluice.tenants (id, name) overriding system value values ($1::bigint, 'rehearsal ' || $1::bigint)),
handler as (
  insert into sluice.handlers (id, tenant_id, name, url, timeout_seconds, targets, sealed_headers, etag, sealed_secret)
  overriding system value values ($1::bigint, $1, 'rehearsal', '', 30, 'own', '', '', ''))
insert into sluice.queues (id, tenant_id, name, handler_id, retry, max_attempts, idempotency_seconds, succeeded_days,
                           cancelled_days, dead_days, etag)
overriding system value values ($1::bigint, $1, 'rehearsal', $1, '{}', 2, 60, 1, 1, 1, '')
