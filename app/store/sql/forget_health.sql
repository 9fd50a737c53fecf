-- Under the handler's exclusive lock: it has neither a breaker nor an adaptive limit any longer, or is deleted.
with health as (delete from sluice.handler_health x where x.handler_id = $1),
calls as (delete from sluice.handler_calls c where c.handler_id = $1)
update sluice.handlers h set effective_max_concurrency = null, half_open = false, period = h.period + 1 where h.id = $1
