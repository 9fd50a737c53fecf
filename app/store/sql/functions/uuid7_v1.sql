-- A UUIDv7 of the present instant (RFC 9562), for tasks created by the database. Its names were resolved when it was created.
create function sluice.uuid7_v1() returns uuid language sql volatile
return encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
    52, 1), 53, 1), 'hex')::uuid;
