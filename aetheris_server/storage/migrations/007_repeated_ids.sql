-- The runs that a start by an earlier request may have made, behind the first of their workflow id.
-- Most ids have one run, and those cost no entry. Of runs from before, every one may be a repeat.
ALTER TABLE executions ADD COLUMN repeats_id boolean NOT NULL DEFAULT true;
ALTER TABLE executions ALTER COLUMN repeats_id SET DEFAULT false;
CREATE INDEX executions_repeats ON executions (namespace_id, workflow_id, start_request_id) WHERE repeats_id;
