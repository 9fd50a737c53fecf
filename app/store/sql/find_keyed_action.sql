-- The action that an API key has started under an idempotency key.
select a.* from sluice.actions a
where a.tenant_id = $1 and coalesce(a.created_by, '') = coalesce($2, '') and a.idempotency_key = $3
