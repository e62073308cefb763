"""History: the only part that decides what happens next in a run. Owns shards."""
