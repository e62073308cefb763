-- Settings of task queues; most have none, and no row. settings_version grows with each change of one, so
-- that hosts read them again only then.
ALTER TABLE cluster ADD COLUMN settings_version bigint NOT NULL DEFAULT 0;

CREATE TABLE task_queues (
    namespace_id uuid NOT NULL,
    task_queue text NOT NULL,
    -- Where workflow tasks go that require no build; empty for workers of any.
    default_build_id text NOT NULL,
    -- The last requests that have changed something, the newest first.
    request_ids text[] NOT NULL,
    change_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, task_queue)
);
