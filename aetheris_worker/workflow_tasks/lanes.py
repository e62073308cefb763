"""One thing at a time for each run.

Whoever enters a run's lane has the run to himself until he leaves; who comes meanwhile waits his
turn, in order. All on the event loop's thread.
"""

from collections import deque
from collections.abc import Callable


class RunLanes:
    """The lanes that somebody is in, by run id."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], None]]] = {}

    def enter(self, run_id: str, begin: Callable[[], None]) -> None:
        """Call it as soon as the lane is free; whatever it begins ends with `leave`."""
        waiting = self._waiting.get(run_id)
        if waiting is not None:
            waiting.append(begin)
            return
        self._waiting[run_id] = deque()
        begin()

    def leave(self, run_id: str) -> None:
        """The lane is free for the next one."""
        waiting = self._waiting[run_id]
        if waiting:
            waiting.popleft()()
        else:
            del self._waiting[run_id]
