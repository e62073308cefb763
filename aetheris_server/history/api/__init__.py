"""What history does when it is asked: one module per call, all on the same write path."""
