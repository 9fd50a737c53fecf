-- A page of a tenant's batches, before their tasks are looked at.
(select * from sluice.batches where tenant_id = $1 and id < $2 order by id desc limit $3)
