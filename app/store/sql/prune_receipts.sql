-- Deletes a chunk of receipts: a group whose answer was lost is run again within minutes, never after an hour.
with gone as (
  delete from sluice.receipts where group_id = any(array(
    select group_id from sluice.receipts where created_at < statement_timestamp() - make_interval(hours => $2)
    order by created_at limit $1))
  returning 1)
select count(*) from gone
