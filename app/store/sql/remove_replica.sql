-- A replica that stops in order says goodbye; others are pruned.
delete from sluice.replicas where id = $1
