-- Never within an enqueue's transaction, where it reduces concurrent inserts to a third.
select pg_notify($1, $2)
