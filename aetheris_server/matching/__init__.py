"""Brings tasks and pollers together. Stateless but for the polls and tasks that wait in it."""

from aetheris_server.matching.service import MatchingService, TaskStarter

__all__ = ["MatchingService", "TaskStarter"]
