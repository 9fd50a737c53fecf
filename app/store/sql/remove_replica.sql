-- A replica that shuts down cleanly removes its row; others are pruned.
delete from sluice.replicas where id = $1
