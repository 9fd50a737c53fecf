-- Replicas that stopped without a clean shutdown are shown for a while, then deleted.
delete from sluice.replicas where seen_at < clock_timestamp() - make_interval(secs => $1)
