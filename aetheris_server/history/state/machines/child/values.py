"""What a run keeps of its children."""

from dataclasses import dataclass

from google.protobuf.message import Message

from aetheris.api.v1 import history_pb2, workflow_pb2
from aetheris_server.history.state.run import RunState

NAME = "child"

_FIXED_BYTES = 512

_SHARED_FIELDS = (
    "input",
    "workflow_execution_timeout",
    "workflow_run_timeout",
    "workflow_task_timeout",
    "retry_policy",
    "header",
    "memo",
    "search_attributes",
    "priority",
)


def copy_start(source: Message, target: Message) -> None:
    """Copy, as far as it is set, what the command, the event and the request to start a run have
    by the same names.
    """
    for name in _SHARED_FIELDS:
        if source.HasField(name):
            getattr(target, name).CopyFrom(getattr(source, name))


@dataclass(slots=True)
class ChildState:
    """A child that has not closed, as far as its parent knows.

    Attributes:
        initiated: What its initiated event says; once it has started, without what it alone needs.
        run_id: The first run of its chain; empty until it is known to have started.
        started_event_id: 0 until there is one, and while that is buffered.
    """

    initiated_event_id: int
    initiated: history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes
    run_id: str = ""
    started_event_id: int = 0

    @property
    def byte_count(self) -> int:
        """What it takes in memory, about."""
        return _FIXED_BYTES + self.initiated.ByteSize()

    @property
    def is_abandoned(self) -> bool:
        """Whether it goes on when its parent closes."""
        return self.initiated.parent_close_policy == workflow_pb2.PARENT_CLOSE_POLICY_ABANDON


class Children(dict[int, ChildState]):
    """A run's open children, by their initiated events.

    Attributes:
        unstarted_count: How many of them are not known to have started.
        are_owed: The run has closed, and of those that were open only those are left that it owes
            something.
    """

    __slots__ = ("are_owed", "unstarted_count")

    def __init__(self) -> None:
        super().__init__()
        self.unstarted_count = 0
        self.are_owed = False


def children_of(state: RunState) -> Children:
    """Those of a run; without any, a value that is nobody's."""
    return state.parts.find(Children) or Children()


def add_child(state: RunState, child: ChildState) -> None:
    """Keep one."""
    children = state.parts.make(Children)
    children[child.initiated_event_id] = child
    children.unstarted_count += not child.run_id
    state.held_bytes += child.byte_count


def note_started(
    state: RunState,
    child: ChildState,
    run_id: str,
    kept: history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes,
) -> None:
    """It has started; `kept` is what is still needed of its initiated event."""
    if child.run_id:
        return
    children_of(state).unstarted_count -= 1
    state.held_bytes -= child.byte_count
    child.run_id, child.initiated = run_id, kept
    state.held_bytes += child.byte_count


def drop_child(state: RunState, initiated_event_id: int) -> None:
    """Forget one, if it is there."""
    children = state.parts.find(Children)
    child = children.pop(initiated_event_id, None) if children is not None else None
    if children is not None and child is not None:
        children.unstarted_count -= not child.run_id
        state.held_bytes -= child.byte_count
        if not children:
            state.parts.drop(Children)
