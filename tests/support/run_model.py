"""A small model of a run, made from the rules alone: what is open, and which events follow.

It is told what is asked of the run, and writes down by itself the types of all events that the
history must then have, in order. It shares no code with the core. Of time it is told which
activities and whether the run ran into a deadline; timers, the start's delay and the workflow task
it times itself. Whether a failed attempt or run is tried again it is told, too.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from aetheris.api.v1 import command_pb2, workflow_pb2
from aetheris_server.history.state.limits import RunLimits

TASK_TIMEOUT = 10.0

_FINISHES = frozenset(
    {
        *(f"ACTIVITY_TASK_{end}" for end in ("STARTED", "COMPLETED", "FAILED", "TIMED_OUT")),
        "ACTIVITY_TASK_CANCELLED",
        "START_CHILD_WORKFLOW_EXECUTION_FAILED",
        *(
            f"CHILD_WORKFLOW_EXECUTION_{end}"
            for end in ("STARTED", "COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED", "TERMINATED")
        ),
    }
)
_FOR_PEOPLE = frozenset(
    f"WORKFLOW_EXECUTION_{what}" for what in ("PAUSED", "UNPAUSED", "OPTIONS_UPDATED")
)
_ABANDON = workflow_pb2.PARENT_CLOSE_POLICY_ABANDON
_MAX_ATTEMPT_FOR_UPDATES = 3
_UNKNOWN_NAMESPACE = "none"


class Waiting(NamedTuple):
    """An event in the buffer, and what it is about."""

    name: str
    subject: object = None


@dataclass
class Activity:
    """An open one."""

    activity_id: str
    cancel_requested: bool = False


@dataclass
class Child:
    """One that is open, or that a closed run owes something.

    Attributes:
        decision: The completed event of the workflow task that initiated it.
    """

    policy: int
    decision: int
    is_started: bool = False


@dataclass
class Out:
    """A workflow task that a worker has."""

    attempt: int
    started_time: datetime
    deadline_at: float
    updates: tuple[str, ...] = ()
    is_speculative: bool = False


class _RefusedError(Exception):
    """The decision is refused."""


@dataclass
class _Pass:
    """What the commands of one decision have come to so far."""

    completed_id: int
    now: datetime
    in_flight: frozenset[int]
    names: list[str] = field(default_factory=list[str])
    at_end: list[tuple[str, Callable[[], object]]] = field(
        default_factory=list[tuple[str, Callable[[], object]]]
    )
    changes: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])
    activity_ids: set[str] = field(default_factory=set[str])
    asked: set[int] = field(default_factory=set[int])
    timers: dict[str, datetime] = field(default_factory=dict[str, datetime])
    withdrawn: set[int] = field(default_factory=set[int])
    begun: dict[str, int] = field(default_factory=dict[str, int])
    accepted: set[str] = field(default_factory=set[str])
    completed: set[str] = field(default_factory=set[str])
    closes: bool = False

    def add(self, name: str) -> int:
        """Append an event; its id."""
        self.names.append(name)
        return self.completed_id + len(self.names)


class RunModel:
    """One run.

    Attributes:
        history: The types of all events that there must be.
        task: The attempt of the pending workflow task; None for none.
        out: What a worker has of it.
        first_task_time: When a delayed start ends.
    """

    def __init__(
        self,
        limits: RunLimits,
        *,
        now: datetime,
        delay: timedelta = timedelta(0),
        has_parent: bool = False,
        build_id: str = "",
    ) -> None:
        self.limits = limits
        self.history = ["WORKFLOW_EXECUTION_STARTED"]
        self.is_open = True
        self.is_paused = False
        self.task: int | None = None
        self.out: Out | None = None
        self.heartbeat_since: datetime | None = None
        self.first_task_time: datetime | None = now + delay if delay else None
        self.activities: dict[int, Activity] = {}
        self.timers: dict[str, datetime] = {}
        self.children: dict[int, Child] = {}
        self.external: dict[str, set[int]] = {"signal": set(), "cancel": set()}
        self.open_updates: set[str] = set()
        self.completed_updates: set[str] = set()
        self.buffer: list[Waiting] = []
        self.signal_ids: set[str] = set()
        self.cancel_requested = False
        self.pause_ids: set[str] = set()
        self.build_id = build_id
        self.options_ids: set[str] = set()
        self.has_parent = has_parent
        self.tells_parent = False
        if not delay:
            self._schedule()

    @property
    def next_id(self) -> int:
        """The next event's."""
        return len(self.history) + 1

    def owed_calls(self) -> set[int]:
        """The numbers of the calls to other runs that have not come to anything."""
        starts = {key for key, child in self.children.items() if not child.is_started}
        owed = starts | self.external["signal"] | self.external["cancel"]
        if not self.is_open:
            owed |= {-key for key, child in self.children.items() if child.is_started}
            owed |= {len(self.history)} if self.tells_parent else set()
        return owed

    def takes_update(self, waiting_count: int) -> bool:
        """Whether another update may wait to be judged."""
        open_count = waiting_count + len(self.open_updates)
        return (
            self.is_open
            and not self.is_paused
            and (self.task or 1) <= _MAX_ATTEMPT_FOR_UPDATES
            and open_count < self.limits.max_open_updates
            and open_count + len(self.completed_updates) < self.limits.max_updates
        )

    # What all share: the buffer, and the next workflow task.

    def _schedule(self) -> None:
        self.history.append("WORKFLOW_TASK_SCHEDULED")
        self.task, self.first_task_time = 1, None

    def _ensure_task(self) -> None:
        is_waiting = self.out is not None or self.first_task_time is not None
        if not is_waiting and self.task != 1:
            self._schedule()

    def _note(self, *events: Waiting) -> None:
        if self.out is not None:
            self.buffer.extend(events)
            return
        self.history.extend(event.name for event in events)

    def _happen(self, *events: Waiting) -> None:
        self._note(*events)
        self._ensure_task()

    def _flush(self, withdrawn: AbstractSet[int] = frozenset()) -> bool:
        """Whether there was anything that the code must see."""
        kept = [event for index, event in enumerate(self.buffer) if index not in withdrawn]
        self.buffer.clear()
        for is_finish in (False, True):
            names = [event.name for event in kept if (event.name in _FINISHES) == is_finish]
            self.history.extend(names)
        return any(event.name not in _FOR_PEOPLE for event in kept)

    # Workflow tasks.

    def start_task(self, now: datetime, at: float, updates: Sequence[str]) -> None:
        """A worker takes the pending task, or else one that is there for updates alone."""
        speculative = self.task is None
        deadline = at + TASK_TIMEOUT
        self.out = Out(self.task or 1, now, deadline, tuple(updates), is_speculative=speculative)

    def _write_start(self, out: Out) -> None:
        if out.attempt > 1 or out.is_speculative:
            self.history.append("WORKFLOW_TASK_SCHEDULED")
        self.history.append("WORKFLOW_TASK_STARTED")

    def _end_task(self, name: str) -> None:
        """It ends without a decision, and is tried again."""
        out = self.out
        assert out is not None
        self._give_up(name)
        if self._flush():
            self._schedule()
        else:
            self.task = out.attempt + 1

    def _give_up(self, name: str) -> None:
        out = self.out
        assert out is not None
        if out.attempt == 1:
            self._write_start(out)
            self.history.append(name)
        self.out, self.heartbeat_since = None, None

    def fail_task(self) -> None:
        """A worker could not decide."""
        self._end_task("WORKFLOW_TASK_FAILED")

    def discard_task(self) -> None:
        """A worker rejected all updates of a speculative task."""
        self.out = None
        if self._flush():
            self._ensure_task()

    def lose_host(self) -> None:
        """What workers have is void."""
        self.out, self.heartbeat_since = None, None
        # An attempt whose events are not written gives its ids to whatever is.
        has_lost_ids = self.task is not None and self.task > 1 and bool(self.buffer)
        if self._flush() or has_lost_ids:
            self._ensure_task()

    def complete_task(
        self,
        commands: Sequence[command_pb2.Command],
        now: datetime,
        *,
        force: bool,
        in_flight: frozenset[int],
        goes_on: bool,
    ) -> bool:
        """A worker decides; whether it is taken.

        Args:
            commands: What it decides.
            now: The run's time.
            force: Whether it wants another task in any case.
            in_flight: The scheduled events of activities that workers have.
            goes_on: Whether another run continues this one, if it closes.
        """
        out = self.out
        assert out is not None
        since = None
        if force and not commands:
            since = self.heartbeat_since or out.started_time
            if now - since >= self.limits.max_heartbeat:
                self._end_task("WORKFLOW_TASK_TIMED_OUT")
                return True
        has_own_events = out.attempt > 1 or out.is_speculative
        passed = _Pass(len(self.history) + (3 if has_own_events else 2), now, in_flight)
        try:
            self._judge(passed, commands)
        except _RefusedError:
            self.fail_task()
            return False
        self._write_start(out)
        self.history.append("WORKFLOW_TASK_COMPLETED")
        self.out, self.task, self.heartbeat_since = None, None, since
        for change in passed.changes:
            change()
        if passed.closes:
            closing = passed.names.pop()
            self.history.extend(passed.names)
            self._close(closing, passed.completed_id, goes_on)
            return True
        self.history.extend(passed.names)
        for name, change in passed.at_end:
            self.history.append(name)
            change()
        if self._flush(passed.withdrawn) or passed.at_end or force:
            self._schedule()
        return True

    # Commands.

    def _judge(self, passed: _Pass, commands: Sequence[command_pb2.Command]) -> None:
        closings = {
            command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        }
        is_long = passed.completed_id + 1 > self.limits.history_max_events
        if is_long and commands and not any(each.command_type in closings for each in commands):
            raise _RefusedError
        for command in commands:
            name = command_pb2.CommandType.Name(command.command_type)
            getattr(self, "_" + name.removeprefix("COMMAND_TYPE_").lower())(passed, command)
            if passed.closes:
                return

    def _require(self, good: object) -> None:
        if not good:
            raise _RefusedError

    def _schedule_activity_task(self, passed: _Pass, command: command_pb2.Command) -> None:
        given = command.schedule_activity_task_command_attributes
        taken = {each.activity_id for each in self.activities.values()} | passed.activity_ids
        self._require(given.activity_id and given.activity_id not in taken)
        self._require(len(taken) < self.limits.max_pending_activities)
        passed.activity_ids.add(given.activity_id)
        event_id = passed.add("ACTIVITY_TASK_SCHEDULED")
        activity = Activity(given.activity_id)
        passed.changes.append(lambda: self.activities.update({event_id: activity}))

    def _request_cancel_activity_task(self, passed: _Pass, command: command_pb2.Command) -> None:
        event_id = command.request_cancel_activity_task_command_attributes.scheduled_event_id
        activity = self.activities.get(event_id)
        if event_id in passed.asked or (activity is not None and activity.cancel_requested):
            return
        if activity is None:
            self._require(event_id in self._ended_activities())
        passed.asked.add(event_id)
        passed.add("ACTIVITY_TASK_CANCEL_REQUESTED")
        if activity is None:
            return
        passed.changes.append(lambda: setattr(activity, "cancel_requested", True))
        if event_id not in passed.in_flight:
            passed.at_end.append(("ACTIVITY_TASK_CANCELLED", lambda: self.activities.pop(event_id)))

    def _ended_activities(self) -> set[object]:
        return {each.subject for each in self.buffer if each.name.startswith("ACTIVITY_TASK_")}

    def _start_timer(self, passed: _Pass, command: command_pb2.Command) -> None:
        given = command.start_timer_command_attributes
        timeout = given.start_to_fire_timeout.ToTimedelta()
        timers = self._timers_of(passed)
        self._require(timeout and given.timer_id not in timers)
        self._require(len(timers) < self.limits.max_pending_timers)
        timers[given.timer_id] = passed.now + timeout
        passed.add("TIMER_STARTED")

    def _cancel_timer(self, passed: _Pass, command: command_pb2.Command) -> None:
        timer_id = command.cancel_timer_command_attributes.timer_id
        if self._timers_of(passed).pop(timer_id, None) is None:
            fired = [
                index
                for index, event in enumerate(self.buffer)
                if event == Waiting("TIMER_FIRED", timer_id) and index not in passed.withdrawn
            ]
            self._require(fired)
            passed.withdrawn.add(fired[0])
        passed.add("TIMER_CANCELLED")

    def _timers_of(self, passed: _Pass) -> dict[str, datetime]:
        if "timers" not in passed.begun:
            passed.begun["timers"] = 1
            passed.timers.update(self.timers)
            passed.changes.append(lambda: setattr(self, "timers", passed.timers))
        return passed.timers

    def _record_marker(self, passed: _Pass, _command: command_pb2.Command) -> None:
        passed.add("MARKER_RECORDED")

    def _modify_workflow_properties(self, passed: _Pass, command: command_pb2.Command) -> None:
        self._require(command.modify_workflow_properties_command_attributes.upserted_memo.fields)
        passed.add("WORKFLOW_PROPERTIES_MODIFIED")

    def _upsert_workflow_search_attributes(
        self, passed: _Pass, command: command_pb2.Command
    ) -> None:
        given = command.upsert_workflow_search_attributes_command_attributes
        self._require(given.search_attributes.indexed_fields)
        passed.add("UPSERT_WORKFLOW_SEARCH_ATTRIBUTES")

    def _start_child_workflow_execution(self, passed: _Pass, command: command_pb2.Command) -> None:
        given = command.start_child_workflow_execution_command_attributes
        self._require(given.workflow_id)
        self._count(passed, "child", len(self.children), self.limits.max_pending_children)
        event_id = passed.add("START_CHILD_WORKFLOW_EXECUTION_INITIATED")
        if given.namespace == _UNKNOWN_NAMESPACE:
            passed.at_end.append(("START_CHILD_WORKFLOW_EXECUTION_FAILED", lambda: None))
            return
        child = Child(given.parent_close_policy, passed.completed_id)
        passed.changes.append(lambda: self.children.update({event_id: child}))

    def _signal_external_workflow_execution(
        self, passed: _Pass, command: command_pb2.Command
    ) -> None:
        given = command.signal_external_workflow_execution_command_attributes
        self._require(given.workflow_execution.workflow_id)
        limit = self.limits.max_pending_external_signals
        self._ask(passed, "signal", "SIGNAL_EXTERNAL", given.namespace, limit)

    def _request_cancel_external_workflow_execution(
        self, passed: _Pass, command: command_pb2.Command
    ) -> None:
        given = command.request_cancel_external_workflow_execution_command_attributes
        self._require(given.workflow_execution.workflow_id)
        limit = self.limits.max_pending_external_cancels
        self._ask(passed, "cancel", "REQUEST_CANCEL_EXTERNAL", given.namespace, limit)

    def _ask(self, passed: _Pass, what: str, name: str, namespace: str, limit: int) -> None:
        self._count(passed, what, len(self.external[what]), limit)
        event_id = passed.add(f"{name}_WORKFLOW_EXECUTION_INITIATED")
        if namespace == _UNKNOWN_NAMESPACE:
            passed.at_end.append((f"{name}_WORKFLOW_EXECUTION_FAILED", lambda: None))
        else:
            passed.changes.append(lambda: self.external[what].add(event_id))

    def _count(self, passed: _Pass, what: str, pending: int, limit: int) -> None:
        begun = passed.begun.get(what, 0)
        self._require(pending + begun < limit)
        passed.begun[what] = begun + 1

    def _protocol_message(self, passed: _Pass, command: command_pb2.Command) -> None:
        given = command.protocol_message_command_attributes
        update_id = given.message_id
        if given.HasField("acceptance"):
            assert self.out is not None
            self._require(update_id in self.out.updates and update_id not in passed.accepted)
            passed.accepted.add(update_id)
            passed.add("WORKFLOW_EXECUTION_UPDATE_ACCEPTED")
            passed.changes.append(lambda: self.open_updates.add(update_id))
            return
        is_open = update_id in self.open_updates | passed.accepted
        self._require(is_open and update_id not in passed.completed)
        passed.completed.add(update_id)
        passed.add("WORKFLOW_EXECUTION_UPDATE_COMPLETED")
        passed.changes.append(lambda: self.open_updates.remove(update_id))
        passed.changes.append(lambda: self.completed_updates.add(update_id))

    def _complete_workflow_execution(self, passed: _Pass, _command: command_pb2.Command) -> None:
        self._prepare_close(passed, "WORKFLOW_EXECUTION_COMPLETED")

    def _fail_workflow_execution(self, passed: _Pass, command: command_pb2.Command) -> None:
        self._require(command.fail_workflow_execution_command_attributes.HasField("failure"))
        self._prepare_close(passed, "WORKFLOW_EXECUTION_FAILED")

    def _cancel_workflow_execution(self, passed: _Pass, _command: command_pb2.Command) -> None:
        self._prepare_close(passed, "WORKFLOW_EXECUTION_CANCELLED")

    def _continue_as_new_workflow_execution(
        self, passed: _Pass, command: command_pb2.Command
    ) -> None:
        given = command.continue_as_new_workflow_execution_command_attributes
        self._require(not given.cron_schedule)
        self._prepare_close(passed, "WORKFLOW_EXECUTION_CONTINUED_AS_NEW")

    def _prepare_close(self, passed: _Pass, name: str) -> None:
        waiting = [
            event for index, event in enumerate(self.buffer) if index not in passed.withdrawn
        ]
        self._require(all(event.name in _FOR_PEOPLE for event in waiting))
        for event in waiting:
            passed.add(event.name)
        passed.add(name)
        passed.closes = True

    # The end.

    def _close(self, name: str, decision: int, goes_on: bool) -> None:
        self.history.append(name)
        self.is_open = self.is_paused = False
        self.task = self.out = self.heartbeat_since = self.first_task_time = None
        self.buffer.clear()
        self.activities.clear()
        self.timers = {}
        self.children = {
            key: child for key, child in self.children.items() if self._is_owed(child, decision)
        }
        self.tells_parent = self.has_parent and not goes_on

    def _is_owed(self, child: Child, decision: int) -> bool:
        if child.policy == _ABANDON:
            return not child.is_started
        return child.is_started or child.decision != decision

    def _close_from_outside(self, name: str, goes_on: bool) -> None:
        if self.out is not None and not self.out.is_speculative:
            self._give_up("WORKFLOW_TASK_FAILED")
        self._flush()
        self._close(name, 0, goes_on)

    def terminate(self) -> None:
        """A client closes an open run."""
        self._close_from_outside("WORKFLOW_EXECUTION_TERMINATED", goes_on=False)

    # Requests.

    def signal(self, request_id: str) -> None:
        """A client signals an open run that takes signals still."""
        if request_id in self.signal_ids:
            return
        self.signal_ids.add(request_id)
        if self.out is not None and len(self.buffer) >= self.limits.max_buffered_events:
            self._end_task("WORKFLOW_TASK_FAILED")
        self._happen(Waiting("WORKFLOW_EXECUTION_SIGNALED"))

    def request_cancel(self) -> None:
        """A client asks an open run to cancel."""
        if self.cancel_requested:
            return
        self.cancel_requested = True
        self._note(Waiting("WORKFLOW_EXECUTION_CANCEL_REQUESTED"))
        if self.first_task_time is not None:
            self._schedule()
        else:
            self._ensure_task()

    def pause(self, request_id: str, is_paused: bool) -> None:
        """A client pauses or unpauses an open run."""
        if request_id in self.pause_ids or self.is_paused == is_paused:
            return
        self.pause_ids.add(request_id)
        self.is_paused = is_paused
        self._tell(f"WORKFLOW_EXECUTION_{'PAUSED' if is_paused else 'UNPAUSED'}")

    def update_options(self, request_id: str, build_id: str) -> None:
        """A client pins an open run to a build."""
        if request_id in self.options_ids or build_id == self.build_id:
            return
        self.options_ids.add(request_id)
        self.build_id = build_id
        self._tell("WORKFLOW_EXECUTION_OPTIONS_UPDATED")

    def _tell(self, name: str) -> None:
        """Note what is for people; an attempt whose events are not written gives it its ids."""
        self._note(Waiting(name))
        if self.task is not None and self.task > 1:
            self._ensure_task()

    # Answers.

    def end_activity(self, event_id: int, name: str) -> None:
        """A worker's answer closes an activity."""
        del self.activities[event_id]
        started = Waiting("ACTIVITY_TASK_STARTED", event_id)
        self._happen(started, Waiting(f"ACTIVITY_TASK_{name}", event_id))

    def answer_start(self, number: int, is_done: bool) -> None:
        """Something came of a child's start."""
        child = self.children.get(number)
        if child is None or child.is_started:
            return
        child.is_started = is_done
        if not is_done or (not self.is_open and child.policy == _ABANDON):
            del self.children[number]
        if self.is_open:
            started = "CHILD_WORKFLOW_EXECUTION_STARTED"
            failed = "START_CHILD_WORKFLOW_EXECUTION_FAILED"
            self._happen(Waiting(started if is_done else failed))

    def answer_close(self, number: int) -> None:
        """A child of the closed run has been told of its end."""
        self.children.pop(-number, None)

    def answer_external(self, what: str, number: int, is_done: bool) -> None:
        """Something came of a signal or a request to cancel."""
        if number not in self.external[what]:
            return
        self.external[what].remove(number)
        if self.is_open:
            asked, done = {
                "signal": ("SIGNAL_EXTERNAL", "SIGNALED"),
                "cancel": ("REQUEST_CANCEL_EXTERNAL", "CANCEL_REQUESTED"),
            }[what]
            failed = f"{asked}_WORKFLOW_EXECUTION_FAILED"
            self._happen(Waiting(f"EXTERNAL_WORKFLOW_EXECUTION_{done}" if is_done else failed))

    def hear_closed(self, number: int, name: str) -> None:
        """A child says that it has closed."""
        if not self.is_open or number not in self.children:
            return
        child = self.children.pop(number)
        events = [] if child.is_started else [Waiting("CHILD_WORKFLOW_EXECUTION_STARTED")]
        self._happen(*events, Waiting(f"CHILD_WORKFLOW_EXECUTION_{name}"))

    # Time.

    def pass_time(
        self,
        now: datetime,
        at: float,
        *,
        is_over: bool,
        goes_on: bool,
        timed_out: Sequence[tuple[int, bool]],
    ) -> None:
        """Time may have passed.

        Args:
            now: By the wall clock.
            at: By the clock for intervals.
            is_over: Whether the run ran into its deadline.
            goes_on: Whether another run continues it then.
            timed_out: Activities that ran into theirs for good, in order: the scheduled event, and
                whether a worker had it.
        """
        if is_over:
            self._close_from_outside("WORKFLOW_EXECUTION_TIMED_OUT", goes_on)
        if not self.is_open:
            return
        if self.first_task_time is not None and self.first_task_time <= now:
            self._schedule()
        if self.out is not None and self.out.deadline_at <= at:
            self._end_task("WORKFLOW_TASK_TIMED_OUT")
        due = sorted((time, id_) for id_, time in self.timers.items() if time <= now)
        for _, timer_id in due:
            del self.timers[timer_id]
            self._note(Waiting("TIMER_FIRED", timer_id))
        if due:
            self._ensure_task()
        for event_id, had_started in timed_out:
            del self.activities[event_id]
            started = [Waiting("ACTIVITY_TASK_STARTED", event_id)] if had_started else []
            self._happen(*started, Waiting("ACTIVITY_TASK_TIMED_OUT", event_id))
