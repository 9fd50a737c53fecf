-- Take back the room of a replica ($2) that no longer receives from a source ($1).
delete from sluice.source_receivers where source_id = $1 and replica_id = $2
