-- Under the handler's exclusive lock: its health, and what claims read of it.
with gate as (
  update sluice.handlers h set effective_max_concurrency = $4, half_open = $5, period = $6 where h.id = $1)
insert into sluice.handler_health (handler_id, health, look_at) values ($1, $2, $3)
on conflict (handler_id) do update set health = excluded.health, look_at = excluded.look_at
