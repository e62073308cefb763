-- What a run, or any other aggregate, still owes need not be a task. A server from before does not know the
-- column by this name: it is to be ended before.
ALTER TABLE executions RENAME COLUMN owes_tasks TO owes;

-- One row per aggregate that is not a run, as executions has for runs: an index of the log, written in the
-- transaction that writes what it shows. Its rows in log and snapshots have its id as their run_id.
CREATE TABLE aggregates (
    shard_id integer NOT NULL,
    owes boolean NOT NULL DEFAULT false,
    namespace_id uuid NOT NULL,
    id uuid NOT NULL,
    close_time timestamptz,
    -- The earliest deadline that must survive a crash.
    wake_time timestamptz,
    kind text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (shard_id, id)
);
CREATE INDEX aggregates_wake ON aggregates (shard_id, wake_time) WHERE wake_time IS NOT NULL;
CREATE INDEX aggregates_owing ON aggregates (shard_id) WHERE owes;
