-- Remove source $1 with what its receivers have written. Its state is gone, so they write no more.
with receivers as (delete from sluice.source_receivers where source_id = $1),
tasks as (delete from sluice.source_tasks where source_id = $1)
delete from sluice.sources where id = $1
