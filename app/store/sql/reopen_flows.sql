-- Open the flows of tenant $1, and forget which buckets they take: what queues, handlers and limits say has changed.
update sluice.flows f set buckets = null, limit_ids = null, costs = null, parked_on = null, parked_limit = null where f.tenant_id = $1
