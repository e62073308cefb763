-- A record's place in its run is taken once: a host whose memory of a run is not what the log has cannot
-- write on top of it. With run_id first, the index still grows at its end, as run ids do.
-- Writers wait while the index is built. Where the log has a place twice, the migration is refused and the
-- message names the run and the place: that run's history has been forked and needs a decision.
DROP INDEX log_run;
CREATE UNIQUE INDEX log_run ON log (run_id, run_seq, shard_id) WHERE run_id IS NOT NULL;
