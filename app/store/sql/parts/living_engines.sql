-- Replicas that promote, claim and deliver: not those that only take requests, are draining, or have stopped sending heartbeats.
from sluice.replicas e where e.roles <> 'api' and not e.draining
  and e.seen_at > clock_timestamp() - make_interval(secs => {alive_seconds})
