-- Remove source $1 with what its receivers have written; they notice at their next round. The state goes first, because its row is locked
-- first everywhere.
with state as (delete from sluice.source_states where source_id = $1),
receivers as (delete from sluice.source_receivers where source_id = $1),
tasks as (delete from sluice.source_tasks where source_id = $1)
delete from sluice.sources where id = $1
