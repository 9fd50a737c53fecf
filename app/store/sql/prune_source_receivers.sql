-- Remove what replicas have left that are gone, and what the receivers of a source have written that has been removed meanwhile.
with receivers as (
  delete from sluice.source_receivers r where not exists (select from sluice.replicas p where p.id = r.replica_id)
    or not exists (select from sluice.sources s where s.id = r.source_id))
delete from sluice.source_tasks k where not exists (select from sluice.sources s where s.id = k.source_id)
