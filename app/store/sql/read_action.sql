-- One action, as stored.
select a.* from sluice.actions a where a.id = $1
