-- Begin to count for a new source.
insert into sluice.source_states (source_id) values ($1)
