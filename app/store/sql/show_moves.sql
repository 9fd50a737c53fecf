-- Actions that move the tasks of a tenant's queue to others, newest first. $3: the id of the queue, as there may have been others of its name.
select a.* from sluice.actions a
where a.tenant_id = $1 and a.kind = 'move' and a.filter ->> 'queue' = $2 and a.search -> 'queue_ids' @> to_jsonb($3::bigint)
order by a.id desc limit $4
