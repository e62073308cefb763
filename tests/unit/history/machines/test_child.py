"""Children, as their parent has them: what moves one, and what a closed run still owes it."""

import itertools

import pytest

from aetheris.api.v1 import history_pb2, workflow_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome, CallRefused
from aetheris.server.v1.run_calls_pb2 import (
    RUN_CALL_RESULT_ALREADY_EXISTS,
    RUN_CALL_RESULT_DONE,
    RUN_CALL_RESULT_NOT_FOUND,
    RunCall,
)
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.child.values import Children, children_of
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    CHILD_ID,
    KEY,
    QUEUE,
    RunDriver,
    application_failure,
    close_event,
    complete_workflow,
    payloads,
    seconds,
    start_child,
)

_TERMINATE = workflow_pb2.PARENT_CLOSE_POLICY_TERMINATE
_ABANDON = workflow_pb2.PARENT_CLOSE_POLICY_ABANDON
_CANCEL = workflow_pb2.PARENT_CLOSE_POLICY_REQUEST_CANCEL


class _Family:
    """A run with one child, in the state that a path of inputs leads to."""

    def __init__(self, policy: workflow_pb2.ParentClosePolicy.ValueType = _TERMINATE) -> None:
        self.run = RunDriver()
        command = start_child(input=payloads("for it"), parent_close_policy=policy)
        self.run.run_task(command)
        self.start = self.run.calls[-1]

    @property
    def stage(self) -> str:
        """Where the child stands; `owed` is what a closed parent owes it."""
        child = children_of(self.run.state).get(number_of(self.start))
        if child is None:
            return "none"
        owed = "" if self.run.state.is_open else "owed "
        return owed + ("started" if child.run_id else "initiated")

    def take(self, name: str) -> bool:
        """Put an input in; whether it changed anything."""
        run = self.run
        match name:
            case "start answered":
                return run.answer(self.start, run_id=CHILD_ID) is not None
            case "start failed":
                return run.answer(self.start, RUN_CALL_RESULT_ALREADY_EXISTS) is not None
            case "child closed":
                return run.hear_closed(number_of(self.start), close_event()) is not None
            case "parent terminated":
                is_open = run.state.is_open
                if is_open:
                    run.terminate()
                return is_open
            case "policy answered":
                calls = [call for call in run.calls if number_of(call) < 0]
                return bool(calls) and run.answer(calls[-1]) is not None
            case _:
                raise ValueError(name)


_PATHS = {
    "initiated": (),
    "started": ("start answered",),
    "none": ("start failed",),
    "owed initiated": ("parent terminated",),
    "owed started": ("start answered", "parent terminated"),
}
_EDGES = {
    ("initiated", "start answered"): "started",
    ("initiated", "start failed"): "none",
    ("initiated", "child closed"): "none",
    ("initiated", "parent terminated"): "owed initiated",
    ("started", "child closed"): "none",
    ("started", "parent terminated"): "owed started",
    ("owed initiated", "start answered"): "owed started",
    ("owed initiated", "start failed"): "none",
    ("owed started", "policy answered"): "none",
    # Closes the run, not the child.
    ("none", "parent terminated"): "none",
}
_INPUTS = sorted({name for _, name in _EDGES})


@pytest.mark.parametrize("stage,name", list(itertools.product(_PATHS, _INPUTS)))
def test_child_moves_along_the_table_and_nowhere_else(stage: str, name: str) -> None:
    family = _Family()
    for step in _PATHS[stage]:
        assert family.take(step)
    assert family.stage == stage
    assert family.take(name) == ((stage, name) in _EDGES)
    assert family.stage == _EDGES.get((stage, name), stage)
    assert owes(family.run.fold()) == owes(family.run.state)


@pytest.mark.parametrize("stage", _PATHS)
def test_child_is_whole_in_a_snapshot(stage: str) -> None:
    family = _Family()
    for step in _PATHS[stage]:
        family.take(step)
    state = family.run.state
    loaded = from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))
    assert children_of(loaded) == children_of(state)
    assert loaded.held_bytes == state.held_bytes
    assert children_of(loaded).unstarted_count == children_of(state).unstarted_count


def test_child_that_is_started_is_called_as_a_client_would_start_it() -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    run.run_task(
        start_child(input=payloads("for it"), workflow_run_timeout=seconds(9)), namespace="home"
    )
    (call,) = run.calls
    assert call.request_id == f"{KEY.run_id}/{run.history[-1].event_id}"
    assert (call.target.name, call.target.namespace_id, call.target.id) == (
        "child",
        KEY.namespace_id,
        "",
    )
    asked = RunCall.FromString(call.payload).start_child
    assert asked.root_workflow_execution.run_id == KEY.run_id
    assert asked.request.task_queue.name == QUEUE
    assert asked.request.input == payloads("for it")
    assert asked.request.workflow_run_timeout == seconds(9)
    assert not asked.request.HasField("workflow_task_timeout")
    initiated = run.history[-1].start_child_workflow_execution_initiated_event_attributes
    assert (initiated.namespace, initiated.namespace_id) == ("home", KEY.namespace_id)
    assert initiated.parent_close_policy == _TERMINATE


def test_child_that_closes_before_its_start_is_answered_brings_both_events() -> None:
    family = _Family()
    run = family.run
    record = run.hear_closed(number_of(family.start), close_event(result=payloads("done")))
    assert record is not None
    assert run.names(3) == [
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        "CHILD_WORKFLOW_EXECUTION_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    completed = run.history[-2].child_workflow_execution_completed_event_attributes
    assert completed.started_event_id == run.history[-3].event_id
    assert completed.workflow_execution.run_id == CHILD_ID
    assert completed.result == payloads("done")
    assert run.answer(family.start, run_id=CHILD_ID) is None


@pytest.mark.parametrize("is_started_before", [False, True])
def test_child_that_ends_while_a_worker_decides_names_its_start(is_started_before: bool) -> None:
    family = _Family()
    run = family.run
    run.signal("s1")
    run.start_task()
    if is_started_before:
        run.answer(family.start, run_id=CHILD_ID)
    run.hear_closed(number_of(family.start), close_event("FAILED", failure=application_failure()))
    run.complete_task()
    assert run.names(3) == [
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        "CHILD_WORKFLOW_EXECUTION_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    failed = run.history[-2].child_workflow_execution_failed_event_attributes
    assert failed.started_event_id == run.history[-3].event_id
    assert failed.failure == application_failure()


def test_child_whose_started_event_waits_for_a_lost_worker_ends_with_its_number() -> None:
    family = _Family()
    run = family.run
    run.signal("s1")
    run.start_task()
    run.answer(family.start, run_id=CHILD_ID)
    # The worker is lost, and nothing else has come since.
    run.inflight.workflow_task = None
    run.hear_closed(number_of(family.start), close_event("TIMED_OUT"))
    started = run.last_event("CHILD_WORKFLOW_EXECUTION_STARTED")
    timed_out = run.last_event("CHILD_WORKFLOW_EXECUTION_TIMED_OUT")
    attributes = timed_out.child_workflow_execution_timed_out_event_attributes
    assert attributes.started_event_id == started.event_id > 0


def test_child_of_another_chain_is_not_heard() -> None:
    family = _Family()
    family.take("start answered")
    run_id = "not-the-child"
    event_id = number_of(family.start)
    assert family.run.hear_closed(event_id, close_event(), run_id) is None


def test_start_that_is_refused_as_a_whole_fails_the_child() -> None:
    family = _Family()
    refused = CallOutcome(refused=CallRefused(message="no"))
    assert family.run.take_outcome(family.start, refused) is not None
    failed = family.run.last_event("START_CHILD_WORKFLOW_EXECUTION_FAILED")
    attributes = failed.start_child_workflow_execution_failed_event_attributes
    assert attributes.cause == history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_REFUSED


def test_child_in_a_namespace_that_there_is_not_fails_at_once() -> None:
    run = RunDriver()
    run.run_task(start_child(namespace="none"))
    assert run.names(3) == [
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED",
        "START_CHILD_WORKFLOW_EXECUTION_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    failed = run.history[-2].start_child_workflow_execution_failed_event_attributes
    assert failed.cause == history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_NAMESPACE_NOT_FOUND
    assert not run.calls
    assert Children not in run.state.parts


# When the run closes.


@pytest.mark.parametrize(
    "policy,owed", [(_TERMINATE, "close_child"), (_CANCEL, "close_child"), (_ABANDON, None)]
)
def test_closed_run_owes_a_started_child_what_its_policy_says(
    policy: workflow_pb2.ParentClosePolicy.ValueType, owed: str | None
) -> None:
    family = _Family(policy)
    family.take("start answered")
    family.run.run_task(complete_workflow())
    calls = family.run.owed_calls()
    assert [_asked(call) for call in calls] == ([owed] if owed else [])
    if owed:
        close = RunCall.FromString(calls[0].payload).close_child
        assert (close.parent_close_policy, close.first_execution_run_id) == (policy, CHILD_ID)
        assert calls[0].target.id == ""
        family.take("policy answered")
    assert not owes(family.run.state)
    assert Children not in family.run.state.parts


def _asked(call: AggregateCall) -> str | None:
    return RunCall.FromString(call.payload).WhichOneof("call")


@pytest.mark.parametrize("policy", [_TERMINATE, _CANCEL, _ABANDON])
def test_closed_run_starts_a_child_that_may_have_been_called(
    policy: workflow_pb2.ParentClosePolicy.ValueType,
) -> None:
    family = _Family(policy)
    family.run.terminate()
    assert family.run.owed_calls() == [family.start]
    family.take("start answered")
    assert [_asked(call) for call in family.run.owed_calls()] == (
        [] if policy == _ABANDON else ["close_child"]
    )
    assert family.run.calls[-1] == (family.run.owed_calls() or [family.start])[-1]
    assert family.run.names(1) == ["WORKFLOW_EXECUTION_TERMINATED"]


@pytest.mark.parametrize("policy", [_TERMINATE, _CANCEL, _ABANDON])
def test_child_of_the_last_decision_is_started_only_to_be_abandoned(
    policy: workflow_pb2.ParentClosePolicy.ValueType,
) -> None:
    run = RunDriver()
    run.run_task(start_child(parent_close_policy=policy), complete_workflow())
    owed = [_asked(call) for call in run.owed_calls()]
    assert owed == (["start_child"] if policy == _ABANDON else [])
    assert [_asked(call) for call in run.calls] == owed
    assert owes(run.state) == bool(owed)


def test_child_that_cannot_be_closed_any_more_is_owed_nothing() -> None:
    family = _Family()
    family.take("start answered")
    family.run.terminate()
    assert family.run.answer(family.run.calls[-1], RUN_CALL_RESULT_NOT_FOUND) is not None
    assert not owes(family.run.state)


def test_closed_run_hears_no_child() -> None:
    family = _Family()
    family.take("start answered")
    family.run.terminate()
    assert not family.take("child closed")


# Commands.


@pytest.mark.parametrize(
    "attributes,named",
    [
        ({"workflow_id": ""}, "workflow_id"),
        ({"workflow_id": "w" * 1001}, "workflow_id"),
        ({"workflow_run_timeout": seconds(-1)}, "workflow_run_timeout"),
        ({"workflow_execution_timeout": seconds(-1)}, "workflow_execution_timeout"),
        ({"workflow_task_timeout": seconds(121)}, "workflow_task_timeout"),
        ({"parent_close_policy": 9}, "parent_close_policy"),
        ({"workflow_id_reuse_policy": 9}, "workflow_id_reuse_policy"),
        ({"cron_schedule": "@daily"}, "cron_schedule"),
        ({"priority": {"priority_key": 6}}, "priority.priority_key"),
        ({"namespace": "\0"}, "namespace"),
    ],
)
def test_bad_child_is_refused_by_its_field(attributes: dict[str, object], named: str) -> None:
    run = RunDriver()
    decision = run.run_task(start_child(**attributes))  # type: ignore[arg-type]
    assert decision.refused is not None
    assert named in str(decision.refused)
    bad = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_CHILD_EXECUTION_ATTRIBUTES
    assert decision.refused.cause == bad
    assert not run.calls


def test_children_beyond_the_limit_are_refused() -> None:
    run = RunDriver(RunLimits(max_pending_children=3))
    assert run.run_task(start_child("a"), start_child("b")).refused is None
    run.answer(run.calls[0], RUN_CALL_RESULT_DONE, CHILD_ID)
    refused = run.run_task(start_child("c"), start_child("d")).refused
    assert refused is not None
    limit = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_CHILD_WORKFLOWS_LIMIT_EXCEEDED
    assert (refused.cause, refused.command_index) == (limit, 1)
