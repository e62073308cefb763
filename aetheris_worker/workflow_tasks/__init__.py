"""Workflow tasks: from a poll to a decision."""
