"""Signals that a run sends to others."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import run_calls_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError, check_id, check_size
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.machines.external.owed import (
    NAMESPACE_NOT_FOUND,
    Asked,
    Owed,
    check_target,
)
from aetheris_server.history.state.run import RunState

_BAD = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SIGNAL_WORKFLOW_EXECUTION_ATTRIBUTES


class _Signals(Owed):
    """A run's signals to others that have not come to anything yet."""

    __slots__ = ()


def _to_call(event: history_pb2.HistoryEvent) -> run_calls_pb2.RunCall:
    initiated = event.signal_external_workflow_execution_initiated_event_attributes
    return run_calls_pb2.RunCall(
        signal=run_calls_pb2.SignalRunCall(
            signal_name=initiated.signal_name,
            input=initiated.input if initiated.HasField("input") else None,
            header=initiated.header if initiated.HasField("header") else None,
            child_workflow_only=initiated.child_workflow_only,
            initiated_time=event.event_time,
        )
    )


_ASKED = Asked(
    name="external_signal",
    part=_Signals,
    initiated=history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED,
    done=history_pb2.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED,
    failed=history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED,
    to_call=_to_call,
    causes={
        NAMESPACE_NOT_FOUND: history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_NAMESPACE_NOT_FOUND,
        run_calls_pb2.RUN_CALL_RESULT_NOT_FOUND: (
            history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
        ),
        run_calls_pb2.RUN_CALL_RESULT_SIGNAL_LIMIT: (
            history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_SIGNAL_COUNT_LIMIT_EXCEEDED
        ),
    },
    refused=history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_REFUSED,
)


@dataclass(slots=True)
class _Changed:
    """How many earlier commands have initiated."""

    initiated_count: int = 0


def _signal(commands: CommandPass, command: command_pb2.Command) -> None:
    given = command.signal_external_workflow_execution_command_attributes
    check_target(given.namespace, given.workflow_execution, _BAD, commands.limits)
    check_id(given.signal_name, "signal_name", _BAD, commands.limits)
    check_size(given, commands.limits)
    changed = commands.parts.make(_Changed)
    pending = len(_ASKED.owed_of(commands.state)) + changed.initiated_count
    if pending >= commands.limits.max_pending_external_signals:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_SIGNALS_LIMIT_EXCEEDED,
            f"{pending} signals to other runs are on their way, the most that a run may have",
        )
    changed.initiated_count += 1
    _ASKED.initiate(
        commands,
        history_pb2.SignalExternalWorkflowExecutionInitiatedEventAttributes(
            namespace=given.namespace,
            workflow_execution=given.workflow_execution,
            signal_name=given.signal_name,
            input=given.input if given.HasField("input") else None,
            child_workflow_only=given.child_workflow_only,
            header=given.header if given.HasField("header") else None,
        ),
    )


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    for event_id, event in _ASKED.owed_of(state).items():
        initiated = event.signal_external_workflow_execution_initiated_event_attributes
        response.pending_external_signals.append(
            workflow_pb2.PendingExternalSignalInfo(
                namespace=initiated.namespace,
                workflow_execution=initiated.workflow_execution,
                signal_name=initiated.signal_name,
                initiated_event_id=event_id,
                initiated_time=event.event_time,
            )
        )


def _waits(
    state: RunState, _inflight: Inflight, _now: datetime
) -> Iterator[workflow_pb2.WaitReason]:
    for event in _ASKED.owed_of(state).values():
        initiated = event.signal_external_workflow_execution_initiated_event_attributes
        yield workflow_pb2.WaitReason(
            kind=workflow_pb2.WAIT_KIND_EXTERNAL_CALL,
            subject=initiated.workflow_execution.workflow_id,
            since_time=event.event_time,
        )


MACHINE = Machine(
    name=_ASKED.name,
    commands={command_pb2.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION: _signal},
    events={
        _ASKED.initiated: OnEvent(_ASKED.fold_initiated, obligations=_ASKED.of_initiated),
        _ASKED.done: OnEvent(_ASKED.fold_ended),
        _ASKED.failed: OnEvent(_ASKED.fold_ended),
    },
    own_fact=OnFact(_ASKED.fold_noted),
    owes=_ASKED.owes,
    obligations=_ASKED.obligations,
    closed_owes=_ASKED.owes,
    closed_obligations=_ASKED.closed_obligations,
    answered={"signal": _ASKED.answered},
    save_part=_ASKED.save,
    load_part=_ASKED.load,
    describe=_describe,
    waits=_waits,
)
