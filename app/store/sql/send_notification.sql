-- Never within the transaction of an enqueue: there it cuts concurrent inserters to a third.
select pg_notify($1, $2)
