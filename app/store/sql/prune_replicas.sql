-- Replicas that went silent without saying goodbye are shown for a while, then forgotten.
delete from sluice.replicas where seen_at < clock_timestamp() - make_interval(secs => $1)
