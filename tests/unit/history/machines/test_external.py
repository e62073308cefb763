"""Signals and requests to cancel that a run sends to others: owed until something comes of them."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.server.v1.run_calls_pb2 import (
    RUN_CALL_RESULT_NOT_FOUND,
    RUN_CALL_RESULT_SIGNAL_LIMIT,
)
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import KEY, RunDriver, cancel_run, complete_workflow, payloads, signal_run

_SIGNAL = "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION"
_CANCEL = "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION"
_DONE = {
    _SIGNAL: "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
    _CANCEL: "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
}
_COMMANDS: dict[str, Callable[..., command_pb2.Command]] = {
    _SIGNAL: signal_run,
    _CANCEL: cancel_run,
}
_PATHS = {
    "owed": (),
    "none": ("done",),
    "owed by the closed": ("run closes",),
    "none of the closed": ("run closes", "done"),
}
_EDGES = {
    ("owed", "done"): "none",
    ("owed", "failed"): "none",
    ("owed", "run closes"): "owed by the closed",
    ("none", "run closes"): "none of the closed",
    ("owed by the closed", "done"): "none of the closed",
    ("owed by the closed", "failed"): "none of the closed",
}


def _take(run: RunDriver, name: str) -> bool:
    match name:
        case "done":
            return run.answer(run.calls[0]) is not None
        case "failed":
            return run.answer(run.calls[0], RUN_CALL_RESULT_NOT_FOUND) is not None
        case _:
            is_open = run.state.is_open
            if is_open:
                run.terminate()
            return is_open


def _stage(run: RunDriver) -> str:
    stage = "owed" if run.owed_calls() else "none"
    if run.state.is_open:
        return stage
    return f"{stage} {'by' if stage == 'owed' else 'of'} the closed"


@pytest.mark.parametrize(
    "asked,stage,name",
    list(itertools.product(_COMMANDS, _PATHS, ["done", "failed", "run closes"])),
)
def test_call_moves_along_the_table_and_nowhere_else(asked: str, stage: str, name: str) -> None:
    run = RunDriver()
    run.run_task(_COMMANDS[asked]())
    for step in _PATHS[stage]:
        assert _take(run, step)
    assert _stage(run) == stage
    assert _take(run, name) == ((stage, name) in _EDGES)
    assert _stage(run) == _EDGES.get((stage, name), stage)
    state = run.state
    loaded = from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))
    assert owes(loaded) == owes(run.fold()) == owes(state)
    assert loaded.held_bytes == state.held_bytes


@pytest.mark.parametrize("asked", _COMMANDS)
def test_call_that_is_done_or_failed_is_shown_to_the_code(asked: str) -> None:
    run = RunDriver()
    run.run_task(_COMMANDS[asked]("a"), _COMMANDS[asked]("b"))
    assert run.names(2) == [f"{asked}_INITIATED"] * 2
    run.answer(run.calls[0])
    run.answer(run.calls[1], RUN_CALL_RESULT_NOT_FOUND)
    assert run.names(3) == [_DONE[asked], "WORKFLOW_TASK_SCHEDULED", f"{asked}_FAILED"]


@pytest.mark.parametrize("asked", _COMMANDS)
def test_call_of_the_last_decision_is_made_all_the_same(asked: str) -> None:
    run = RunDriver()
    run.run_task(_COMMANDS[asked](), complete_workflow())
    assert run.owed_calls() == run.calls
    record = run.answer(run.calls[0])
    assert record is not None
    assert not record.events
    assert not owes(run.state)


@pytest.mark.parametrize("asked", _COMMANDS)
def test_call_to_a_namespace_that_there_is_not_fails_at_once(asked: str) -> None:
    run = RunDriver()
    run.run_task(_COMMANDS[asked](namespace="none"))
    assert run.names(3) == [f"{asked}_INITIATED", f"{asked}_FAILED", "WORKFLOW_TASK_SCHEDULED"]
    assert not run.calls
    assert not run.state.parts


@pytest.mark.parametrize("asked", _COMMANDS)
def test_call_while_a_worker_decides_waits_with_the_others(asked: str) -> None:
    run = RunDriver()
    run.run_task(_COMMANDS[asked]())
    run.signal("s1")
    run.start_task()
    run.answer(run.calls[0])
    assert run.answer(run.calls[0]) is None
    run.complete_task()
    assert run.names(2) == [_DONE[asked], "WORKFLOW_TASK_SCHEDULED"]


def test_signal_that_is_one_too_many_says_so() -> None:
    run = RunDriver()
    run.run_task(signal_run())
    run.answer(run.calls[0], RUN_CALL_RESULT_SIGNAL_LIMIT)
    failed = run.last_event(f"{_SIGNAL}_FAILED")
    attributes = failed.signal_external_workflow_execution_failed_event_attributes
    limit = history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_SIGNAL_COUNT_LIMIT_EXCEEDED
    assert attributes.cause == limit


@pytest.mark.parametrize(
    "command,cause,named",
    [
        (signal_run(""), "BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES", "workflow_id"),
        (
            signal_run(input=payloads("x" * 3_000_000)),
            "PAYLOADS_TOO_LARGE",
            "bytes",
        ),
        (
            cancel_run(""),
            "BAD_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_ATTRIBUTES",
            "workflow_id",
        ),
    ],
)
def test_bad_call_is_refused(command: command_pb2.Command, cause: str, named: str) -> None:
    refused = RunDriver().run_task(command).refused
    assert refused is not None
    name = f"WORKFLOW_TASK_FAILED_CAUSE_{cause}"
    assert refused.cause == history_pb2.WorkflowTaskFailedCause.Value(name)
    assert named in str(refused)


@pytest.mark.parametrize("asked", _COMMANDS)
def test_run_id_that_is_none_is_refused(asked: str) -> None:
    command: Any = _COMMANDS[asked]()
    for field in ("signal_external", "request_cancel_external"):
        name = f"{field}_workflow_execution_command_attributes"
        if command.HasField(name):
            getattr(command, name).workflow_execution.run_id = "no-uuid"
    refused = RunDriver().run_task(command).refused
    assert refused is not None
    assert "workflow_execution.run_id" in str(refused)


@pytest.mark.parametrize(
    "asked,cause",
    [
        (_SIGNAL, "PENDING_SIGNALS_LIMIT_EXCEEDED"),
        (_CANCEL, "PENDING_REQUEST_CANCEL_LIMIT_EXCEEDED"),
    ],
)
def test_calls_beyond_the_limit_are_refused(asked: str, cause: str) -> None:
    limits = RunLimits(max_pending_external_signals=2, max_pending_external_cancels=2)
    run = RunDriver(limits)
    assert run.run_task(_COMMANDS[asked]("a"), force_create_new_workflow_task=True).refused is None
    refused = run.run_task(_COMMANDS[asked]("b"), _COMMANDS[asked]("c")).refused
    assert refused is not None
    name = f"WORKFLOW_TASK_FAILED_CAUSE_{cause}"
    assert refused.cause == history_pb2.WorkflowTaskFailedCause.Value(name)
