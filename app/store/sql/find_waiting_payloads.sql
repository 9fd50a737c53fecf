-- Payloads of their own that starts of a schedule wait with.
select r.id, r.payload from sluice.schedule_runs r
where r.schedule_id = $1 and r.outcome = 'waiting' and r.payload is not null order by r.id
