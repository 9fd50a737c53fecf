-- Writes what was decided for the schedules that are still as they were read; answers those.
select sluice.apply_schedules_v1($1, $2, $3)
