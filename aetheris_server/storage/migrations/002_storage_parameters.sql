-- PostgreSQL's own; nothing but speed depends on them, so a store that has none may leave them out.

-- A record stays in its row while the row fits a page: a second table and its index cost more than
-- they save for rows that are read together. Payloads that pay to be compressed are compressed by
-- their owners.
ALTER TABLE log SET (toast_tuple_target = 8160);
ALTER TABLE log ALTER COLUMN record SET STORAGE EXTERNAL;
ALTER TABLE snapshots ALTER COLUMN state SET STORAGE EXTERNAL;

-- Room on the page for the versions that closing its runs makes, also where one batch closes them all:
-- a version elsewhere would need an entry in every index.
ALTER TABLE executions SET (fillfactor = 50);
ALTER TABLE shards SET (fillfactor = 50);
ALTER TABLE hosts SET (fillfactor = 50);
