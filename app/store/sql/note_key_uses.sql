-- Rows are locked in the order of their ids, because replicas note the uses of the same keys.
with used as (
  select k.id, u.at
  from sluice.api_keys k
  join unnest($1::text[], $2::timestamptz[]) u (id, at) using (id)
  order by k.id
  for no key update of k
)
update sluice.api_keys k
set last_used_at = greatest(k.last_used_at, used.at)
from used
where k.id = used.id
