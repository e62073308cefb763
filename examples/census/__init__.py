"""A census of a code base: the main job, which survives kill -9 of its worker and its server."""
