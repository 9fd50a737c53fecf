-- The heartbeat; the first creates the row. Returns what a replica must know: the database's time, how many others are alive, and
-- the oldest release that may still run.
with me as (
  insert into sluice.replicas (id, name, roles, version, started_at, seen_at, draining, deaf, max_in_flight, in_flight,
                               short_tenants, short_queues, connections, connections_wanted, max_payload_bytes)
  values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), $5, $6, $8, $9, $10, $11, $12, $13, $14)
  on conflict (id) do update set seen_at = excluded.seen_at, draining = excluded.draining, deaf = excluded.deaf,
    max_in_flight = excluded.max_in_flight, in_flight = excluded.in_flight,
    short_tenants = excluded.short_tenants, short_queues = excluded.short_queues)
select clock_timestamp() as now, (select count(*) from sluice.replicas
  where id <> $1 and seen_at > clock_timestamp() - make_interval(secs => $7)) as others,
  (select min_compatible from sluice.meta) as min_compatible
