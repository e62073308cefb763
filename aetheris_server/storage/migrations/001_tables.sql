-- All state is keyed by shard, and every unique index contains shard_id, so that the tables can be
-- distributed by it. Times are written by the host that owns the shard, except those of leases,
-- which are the database's.

CREATE TABLE cluster (
    cluster_id smallint PRIMARY KEY DEFAULT 1 CHECK (cluster_id = 1),
    shard_count integer NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hosts (
    host_id text PRIMARY KEY,
    address text NOT NULL,
    heartbeat_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);

-- Who serves a shard. For liveness only: what keeps two hosts from writing is the key of `log`.
CREATE TABLE shards (
    shard_id integer PRIMARY KEY,
    host_id text,
    range_id bigint NOT NULL DEFAULT 0,
    lease_expire_time timestamptz,
    -- Everything that the log up to here asks to dispatch has been dispatched, or its run is marked
    -- by executions.owes_tasks.
    watermark bigint NOT NULL DEFAULT 0
);

-- The truth. Rows are added at the end of a shard's sequence, without gaps, and never changed.
CREATE TABLE log (
    shard_id integer NOT NULL,
    event_count integer NOT NULL,
    shard_seq bigint NOT NULL,
    run_seq bigint NOT NULL,
    first_event_id bigint NOT NULL,
    -- Both null in a note about the shard itself.
    namespace_id uuid,
    run_id uuid,
    hash bytea NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (shard_id, shard_seq)
);
CREATE INDEX log_run ON log (run_id, run_seq) WHERE run_id IS NOT NULL;

-- One row per run: an index of the log, written in the transaction that writes what it shows.
-- Closing a run changes no indexed column unless the run had a wake-up, so that it costs one row
-- version and no index entry.
CREATE TABLE executions (
    shard_id integer NOT NULL,
    status smallint NOT NULL,
    owes_tasks boolean NOT NULL DEFAULT false,
    namespace_id uuid NOT NULL,
    run_id uuid NOT NULL,
    start_time timestamptz NOT NULL,
    execution_time timestamptz NOT NULL,
    close_time timestamptz,
    -- The earliest deadline that must survive a crash.
    wake_time timestamptz,
    history_length bigint NOT NULL,
    history_bytes bigint NOT NULL,
    first_execution_run_id uuid NOT NULL,
    parent_namespace_id uuid,
    parent_run_id uuid,
    parent_workflow_id text,
    workflow_id text NOT NULL,
    start_request_id text NOT NULL,
    workflow_type text NOT NULL,
    task_queue text NOT NULL,
    memo bytea,
    search_attributes jsonb,
    PRIMARY KEY (shard_id, run_id)
);
-- The runs of a workflow id. Without shard_id, so that only the primary key can lead from there to a run.
CREATE INDEX executions_workflow ON executions (namespace_id, workflow_id, start_time);
CREATE INDEX executions_list ON executions (namespace_id, start_time, run_id);
CREATE INDEX executions_wake ON executions (shard_id, wake_time) WHERE wake_time IS NOT NULL;
CREATE INDEX executions_owing ON executions (shard_id) WHERE owes_tasks;

-- A fold of the log up to run_seq, whose chain hash then was `hash`. May be deleted at any time.
CREATE TABLE snapshots (
    shard_id integer NOT NULL,
    run_id uuid NOT NULL,
    run_seq bigint NOT NULL,
    hash bytea NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (shard_id, run_id)
);

CREATE TABLE namespaces (
    namespace_id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    description text NOT NULL,
    retention_seconds bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    request_id text NOT NULL
);
