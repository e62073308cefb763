"""Random lives of a run that starts children and calls other runs: what it owes follows from its
log, and everything comes to one end.
"""

from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import run_calls_pb2
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.machines.child.endings import CLOSE_EVENTS
from aetheris_server.history.state.machines.child.values import children_of
from tests.support.runs import CHILD_ID, cancel_run, close_event, payloads, signal_run, start_child
from tests.unit.history.test_run_machine import RunMachine

_IDS = st.sampled_from(["a", "b", "c", "d"])
CALLS = st.lists(
    st.one_of(
        st.builds(
            lambda id_, policy, namespace: start_child(
                id_, parent_close_policy=policy, namespace=namespace, input=payloads("for it")
            ),
            _IDS,
            st.sampled_from(workflow_pb2.ParentClosePolicy.values()),
            st.sampled_from(["", "", "", "none"]),
        ),
        st.builds(signal_run, _IDS),
        st.builds(cancel_run, _IDS),
    ),
    max_size=3,
)
_RESULTS = st.sampled_from(
    [
        run_calls_pb2.RUN_CALL_RESULT_DONE,
        run_calls_pb2.RUN_CALL_RESULT_DONE,
        run_calls_pb2.RUN_CALL_RESULT_NOT_FOUND,
        run_calls_pb2.RUN_CALL_RESULT_ALREADY_EXISTS,
    ]
)
_CHILD_ENDS = {
    history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED,
    *CLOSE_EVENTS.values(),
}


class CallingMachine(RunMachine):
    """One run, and what comes of its calls, at random."""

    command_made: ClassVar = RunMachine.command_made | {
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
        history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED,
        history_pb2.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED,
    }
    # The clock's steps are the other machine's affair.
    step_clock = None  # pyright: ignore[reportAssignmentType]

    @precondition(lambda self: self._has_task() or self._worker_has_task())
    @rule(commands=CALLS, closes=st.integers(0, 9))
    def decide_calls(self, commands: list[command_pb2.Command], closes: int) -> None:
        if not self._worker_has_task():
            self.run.start_task()
        closing = [
            command_pb2.Command(command_type=command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION)
        ]
        self.run.complete_task(*commands, *(closing if closes == 0 else []))

    @rule(index=st.integers(0, 9), result=_RESULTS)
    def answer_call(self, index: int, result: run_calls_pb2.RunCallResult.ValueType) -> None:
        """Some call that was ever made: it may have come to something before."""
        if not self.run.calls:
            return
        call = self.run.calls[index % len(self.run.calls)]
        is_owed = call.request_id in {owed.request_id for owed in self.run.owed_calls()}
        assert (self.run.answer(call, result, CHILD_ID) is not None) == is_owed

    @rule(index=st.integers(0, 9), name=st.sampled_from(["COMPLETED", "TERMINATED"]))
    def child_closes(self, index: int, name: str) -> None:
        """Also one whose start has not been answered, or that has told so before."""
        initiated = [
            event.event_id
            for event in self.run.history
            if event.HasField("start_child_workflow_execution_initiated_event_attributes")
        ]
        if initiated:
            event_id = initiated[index % len(initiated)]
            is_known = self._is_open() and event_id in children_of(self.run.state)
            assert (self.run.hear_closed(event_id, close_event(name)) is not None) == is_known

    @invariant()
    def calls_that_are_owed_were_made(self) -> None:
        made = {call.request_id: call for call in self.run.calls}
        assert all(made[call.request_id] == call for call in self.run.owed_calls())

    @invariant()
    def children_start_and_end_once(self) -> None:
        started: dict[int, int] = {}
        ended: set[int] = set()
        for event in self.run.history:
            if event.HasField("child_workflow_execution_started_event_attributes"):
                attributes = event.child_workflow_execution_started_event_attributes
                assert attributes.initiated_event_id not in started.keys() | ended
                started[attributes.initiated_event_id] = event.event_id
            elif event.event_type in _CHILD_ENDS:
                ending = getattr(event, ATTRIBUTES[event.event_type])
                assert ending.initiated_event_id not in ended
                ended.add(ending.initiated_event_id)
                if event.event_type in CLOSE_EVENTS.values():
                    assert ending.started_event_id == started[ending.initiated_event_id]
        assert not ended & children_of(self.run.state).keys()


CallingMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCallingMachine = CallingMachine.TestCase
