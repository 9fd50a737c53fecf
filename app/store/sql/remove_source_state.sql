-- Remove the state of source $1, and wait for the round of a receiver that holds it. Receivers end when they find none.
delete from sluice.source_states where source_id = $1
