-- Whether a queue was emptied in the last $3 seconds. $2: its id, as there may have been others of its name.
select exists (
  select from sluice.actions a
  where a.tenant_id = $1 and a.kind = 'empty' and a.search -> 'queue_ids' @> to_jsonb($2::bigint)
    and a.created_at > clock_timestamp() - make_interval(secs => $3))
