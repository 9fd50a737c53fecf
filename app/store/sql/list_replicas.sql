-- Replicas seen lately, including those that have stopped sending heartbeats: those are what operators look for.
select id::text, name, roles, version, started_at, seen_at, draining, deaf, connections, connections_wanted, max_in_flight,
       in_flight, extract(epoch from clock_timestamp() - seen_at)::double precision as silent_seconds
from sluice.replicas where seen_at > clock_timestamp() - make_interval(secs => $1) order by name, id
