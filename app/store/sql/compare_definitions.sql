-- Whether queues ($1, in versions $2) and a handler ($3; 0: none) are still as the caller read them. It runs under their shared
-- locks, so the answer holds until the transaction ends.
select not exists (
    select from unnest($1::bigint[], $2::bigint[]) w(id, version)
    where not exists (select from sluice.queues q where q.id = w.id and q.version = w.version and q.deleted_at is null))
  and ($3 = 0 or exists (select from sluice.handlers h where h.id = $3 and h.deleted_at is null))
