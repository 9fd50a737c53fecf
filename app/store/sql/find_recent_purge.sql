-- Whether a queue of this name was emptied in the last $4 seconds. $3: its id, as there may have been others of its name.
select exists (
  select from (
    select a.created_at from sluice.actions a
    where a.tenant_id = $1 and a.kind = 'empty' and a.filter ->> 'queue' = $2 and a.search -> 'queue_ids' @> to_jsonb($3::bigint)
    order by a.id desc limit 1) last
  where last.created_at > clock_timestamp() - make_interval(secs => $4))
