"""What is known of a run only in memory: which worker has which task, and where its cache is.

None of it is in the log. When the shard moves or the host dies it is gone, the tasks are void and
are offered again; only an at-most-once activity's start is also in the state.

What is waited for here counts by the clock for intervals: fields that end in `_at` are its seconds.
The wall clock may step by hours while a worker has a task, and changes nothing for it. The fields
that end in `_time` are for people.

As in a `RunState`, the values of machines are defined in the machines' own files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aetheris_server.history.state.parts import Parts

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from aetheris_server.history.state.machines.activity.values import StartedActivity
    from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask


@dataclass(slots=True)
class TaskTaker:
    """Who takes a task.

    Attributes:
        sticky_task_queue: Empty for a worker that caches nothing.
        call_id: Of the call that takes the task, the same where it is repeated for want of a
            response: the token of the task that is answered, or what StartTasks has for it. Empty
            where nobody repeats.
    """

    identity: str
    worker_instance_id: str = ""
    sticky_task_queue: str = ""
    worker_version: str = ""
    call_id: bytes = b""

    def is_repeated_by(self, other: TaskTaker) -> bool:
        """Whether the other is the same call again, which had no response."""
        return self.call_id != b"" and self == other


@dataclass(frozen=True, slots=True)
class Sticky:
    """The worker that has the run cached, by its own queue, and the build that it runs."""

    task_queue: str
    timeout: timedelta
    worker_version: str = ""


@dataclass(slots=True)
class Inflight:
    """What workers have of one run.

    Attributes:
        sticky: None until a worker has completed a workflow task, and again after one has not.
        taken_at: When this host took the shard from another; None if it always had the run.
            What was started before is not known, so no wait for a worker counts from earlier.
        backing_off: Activities whose current attempt has not been offered: its time had not come
            when it was last looked at. One that is not among them is due, whatever the wall clock
            says: that may have stepped back since.
        is_task_backing_off: The same for the workflow task.
        heartbeat_since: When the first of the workflow tasks began that a worker has completed one
            after the other with nothing but the wish for the next; None if the last one was not.
        parts: What machines keep that have no field of their own here, while a worker has
            something.
    """

    workflow_task: StartedWorkflowTask | None = None
    activities: dict[int, StartedActivity] = field(default_factory=dict[int, "StartedActivity"])
    sticky: Sticky | None = None
    taken_at: float | None = None
    backing_off: set[int] = field(default_factory=set[int])
    is_task_backing_off: bool = False
    heartbeat_since: datetime | None = None
    parts: Parts = field(default_factory=Parts)

    @property
    def is_idle(self) -> bool:
        """Whether no worker has anything of the run."""
        return self.workflow_task is None and not self.activities and not self.parts

    def clear(self) -> None:
        """The run has closed: nothing that a worker has of it counts any more."""
        self.workflow_task = None
        self.activities.clear()
        self.backing_off.clear()
        self.is_task_backing_off = False
        self.heartbeat_since = None
        self.parts.clear()
