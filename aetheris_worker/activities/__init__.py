"""Activities: from a task to its result."""
