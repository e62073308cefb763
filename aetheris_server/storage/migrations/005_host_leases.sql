-- A host's lease covers its shards: hosts.expire_time. A shard is free where its host_id is null or has no
-- row in hosts. A server from before renews leases in the column that goes: it loses its shards when its
-- lease has run out, and nothing that it had acknowledged.
ALTER TABLE shards DROP COLUMN lease_expire_time;
