-- What the planner is to believe of tables that are still empty, until it has statistics of its own. Plans
-- made then are kept, and without this some would walk through all runs of a namespace to find one.
-- Statistics outlive the rows that they were made from.

INSERT INTO executions (
    shard_id, status, namespace_id, run_id, start_time, execution_time, history_length, history_bytes,
    first_execution_run_id, workflow_id, start_request_id, workflow_type, task_queue
)
SELECT n % 64, 1, '00000000-0000-0000-0000-000000000000', gen_random_uuid(),
    now() + n * interval '1 second', now(), 11, 2000, gen_random_uuid(), 'workflow-' || n,
    'request-' || n, 'type', 'queue'
FROM generate_series(1, 1000) AS n;

INSERT INTO log (
    shard_id, event_count, shard_seq, run_seq, first_event_id, namespace_id, run_id, hash, record
)
SELECT e.shard_id, 2, row_number() OVER (PARTITION BY e.shard_id), n, 2 * n - 1, e.namespace_id,
    e.run_id, decode(md5(n::text), 'hex'), decode(repeat('00', 300), 'hex')
FROM executions e CROSS JOIN generate_series(1, 4) AS n;

INSERT INTO snapshots (shard_id, run_id, run_seq, hash, state)
SELECT shard_id, run_id, 4, decode(md5(workflow_id), 'hex'), decode(repeat('00', 300), 'hex')
FROM executions;

ANALYZE executions, log, snapshots;

TRUNCATE executions, log, snapshots;
