-- For `aggregates` what 002 and 003 are for the other tables: nothing but speed depends on it.
ALTER TABLE aggregates SET (fillfactor = 50);

INSERT INTO aggregates (shard_id, namespace_id, id, kind, name)
SELECT n % 64, '00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'kind', 'name-' || n
FROM generate_series(1, 1000) AS n;

ANALYZE aggregates;

TRUNCATE aggregates;
