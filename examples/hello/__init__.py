"""The smallest workflow: one activity, a worker, a client."""
