-- A page of a tenant's batches, before their tasks are counted.
(select * from sluice.batches where tenant_id = $1 and id < $2{within} order by id desc limit $3)
