"""Calls of runs by other runs: to start as a child, to take a signal, to cancel, to close with the
parent, to hear that a child has closed.

What is decided is decided by the functions that decide it for clients, by the call's request id, so
that a call that comes again changes nothing and is answered in the same way.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError

from aetheris.api.v1 import common_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall
from aetheris.server.v1.run_calls_pb2 import (
    RUN_CALL_RESULT_ALREADY_EXISTS,
    RUN_CALL_RESULT_DONE,
    RUN_CALL_RESULT_NOT_FOUND,
    RUN_CALL_RESULT_SIGNAL_LIMIT,
    ChildClosedCall,
    CloseChildCall,
    RequestCancelRunCall,
    RunCall,
    RunCallAnswer,
    SignalRunCall,
    StartChildCall,
)
from aetheris_server.errors import (
    InvalidArgumentError,
    RequestError,
    UnknownRecordError,
    WorkflowAlreadyStartedError,
    WorkflowClosedError,
    WorkflowNotFoundError,
)
from aetheris_server.history.api.start_workflow import start_workflow
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.cancellation import decide_cancel_requested
from aetheris_server.history.state.machines.child.endings import decide_child_closed
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated
from aetheris_server.history.state.machines.lifecycle.start import Parent
from aetheris_server.history.state.machines.parent import note_told
from aetheris_server.history.state.machines.signal import decide_signaled
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp
from aetheris_server.storage.namespaces import load_namespace_name

_IDENTITY = "history"
# By which the clocks of two hosts may differ at most.
_MAX_SKEW = timedelta(minutes=1)
_PARENT_CLOSED = "the parent has closed"


async def call_run(runs: Runs, call: AggregateCall) -> bytes:
    """Do what another run asks; answer when it is on disk.

    Raises:
        RequestError: It is refused for good, for something that the caller should have checked.
        UnknownRecordError: The caller is of a newer version.
    """
    try:
        asked = RunCall.FromString(call.payload)
    except DecodeError as error:
        raise InvalidArgumentError("payload", f"expected a RunCall: {error}") from None
    kind = asked.WhichOneof("call")
    try:
        match kind:
            case "start_child":
                answer = await _start_child(runs, call, asked.start_child)
            case "signal":
                answer = await _signal(runs, call, asked.signal)
            case "request_cancel":
                answer = await _request_cancel(runs, call, asked.request_cancel)
            case "close_child":
                answer = await _close_child(runs, call, asked.close_child)
            case "child_closed":
                answer = await _hear_closed(runs, call, asked.child_closed)
            case None:
                raise UnknownRecordError(call.request_id, 0, "what a run is asked")
    except (WorkflowNotFoundError, WorkflowClosedError):
        answer = RunCallAnswer(result=RUN_CALL_RESULT_NOT_FOUND)
    return answer.SerializeToString()


async def _start_child(runs: Runs, call: AggregateCall, asked: StartChildCall) -> RunCallAnswer:
    caller, request = call.caller, asked.request
    request.request_id = call.request_id
    namespace = request.namespace
    if caller.namespace_id != call.target.namespace_id:
        namespace = await load_namespace_name(runs.db, caller.namespace_id)
    parent = Parent(
        namespace_id=caller.namespace_id,
        namespace=namespace,
        execution=_caller_of(call),
        initiated_event_id=asked.initiated_event_id,
        root=asked.root_workflow_execution,
    )
    try:
        started = await start_workflow(runs, call.target.namespace_id, request, parent=parent)
    except WorkflowAlreadyStartedError:
        return RunCallAnswer(result=RUN_CALL_RESULT_ALREADY_EXISTS)
    return RunCallAnswer(result=RUN_CALL_RESULT_DONE, run_id=started.run_id)


async def _signal(runs: Runs, call: AggregateCall, asked: SignalRunCall) -> RunCallAnswer:
    run = await _load_target(
        runs,
        call,
        asked.initiated_time,
        lambda state: call.request_id in state.request_ids,
        is_child=asked.child_workflow_only,
    )
    request = workflow_service_pb2.SignalWorkflowRequest(
        signal_name=asked.signal_name,
        input=asked.input if asked.HasField("input") else None,
        header=asked.header if asked.HasField("header") else None,
        identity=_IDENTITY,
        request_id=call.request_id,
    )
    try:
        await _change(
            runs,
            run,
            lambda: decide_signaled(
                run.state,
                run.inflight,
                request,
                runs.time_of(run),
                runs.limits_of(run),
                sender=_caller_of(call),
            ),
        )
    except InvalidArgumentError:
        # Of what it checks, the command has been held to all but this.
        return RunCallAnswer(result=RUN_CALL_RESULT_SIGNAL_LIMIT)
    return RunCallAnswer(result=RUN_CALL_RESULT_DONE)


async def _request_cancel(
    runs: Runs, call: AggregateCall, asked: RequestCancelRunCall
) -> RunCallAnswer:
    run = await _load_target(
        runs,
        call,
        asked.initiated_time,
        lambda state: state.cancel_request_id == call.request_id,
        is_child=asked.child_workflow_only,
    )
    await _record_cancel(runs, call, run, asked.reason, asked.initiated_event_id)
    return RunCallAnswer(result=RUN_CALL_RESULT_DONE)


async def _record_cancel(
    runs: Runs, call: AggregateCall, run: LoadedRun, reason: str, initiated_event_id: int
) -> None:
    request = workflow_service_pb2.CancelWorkflowRequest(
        reason=reason, identity=_IDENTITY, request_id=call.request_id
    )
    await _change(
        runs,
        run,
        lambda: decide_cancel_requested(
            run.state,
            run.inflight,
            request,
            runs.time_of(run),
            sender=_caller_of(call),
            sender_event_id=initiated_event_id,
        ),
    )


async def _close_child(runs: Runs, call: AggregateCall, asked: CloseChildCall) -> RunCallAnswer:
    """To whatever run of the child's chain is open, and to no other chain of its workflow id."""
    first_run_id = asked.first_execution_run_id
    if asked.parent_close_policy == workflow_pb2.PARENT_CLOSE_POLICY_REQUEST_CANCEL:
        run = await _load_target(
            runs,
            call,
            asked.close_time,
            lambda state: state.cancel_request_id == call.request_id,
            first_run_id=first_run_id,
        )
        await _record_cancel(runs, call, run, _PARENT_CLOSED, 0)
        return RunCallAnswer(result=RUN_CALL_RESULT_DONE)
    target = call.target
    run = await runs.load(target.namespace_id, target.name, target.id, first_run_id)
    running = runs.notices.of_all(run)

    def terminate() -> log_pb2.LogRecord | None:
        record = decide_terminated(
            run.state,
            run.inflight,
            reason=_PARENT_CLOSED,
            details=None,
            identity=_IDENTITY,
            request_id=call.request_id,
            now=runs.time_of(run),
        )
        if record is not None:
            note_told(record)
        return record

    await _change(runs, run, terminate)
    runs.notices.send(running)
    return RunCallAnswer(result=RUN_CALL_RESULT_DONE)


async def _hear_closed(runs: Runs, call: AggregateCall, asked: ChildClosedCall) -> RunCallAnswer:
    target = call.target
    run = await runs.load(target.namespace_id, target.name, target.id)
    await _change(
        runs,
        run,
        lambda: decide_child_closed(run.state, run.inflight, call.caller, asked, runs.time_of(run)),
    )
    return RunCallAnswer(result=RUN_CALL_RESULT_DONE)


async def _load_target(
    runs: Runs,
    call: AggregateCall,
    since: timestamp_pb2.Timestamp,
    is_recorded: Callable[[RunState], bool],
    *,
    first_run_id: str = "",
    is_child: bool = False,
) -> LoadedRun:
    """The run that is called; where one that it continues has recorded the call, that one. What
    follows without an await works on its latest state.

    A call is made again for as long as it is owed, and its target may have been continued any
    number of times since it was first made.

    Args:
        runs: Of this host.
        call: By its target.
        since: When the call was owed from.
        is_recorded: Whether a run has recorded it.
        first_run_id: Of the chain that the run must be of; empty for any.
        is_child: Whether the run must be a child of the caller.

    Raises:
        WorkflowNotFoundError: There is no such run.
    """
    target = call.target
    asked = (target.namespace_id, target.name, target.id, first_run_id)
    run = await runs.load(*asked)
    while True:
        if is_child and run.state.started.parent_workflow_execution.run_id != call.caller.id:
            raise WorkflowNotFoundError(target.name, target.id)
        recorded = await _find_recorded(runs, run, from_timestamp(since), is_recorded)
        if recorded is not None:
            return recorded
        known, run = run, await runs.load(*asked)
        if run.key == known.key:
            return run


async def _find_recorded(
    runs: Runs, run: LoadedRun, since: datetime, is_recorded: Callable[[RunState], bool]
) -> LoadedRun | None:
    """Of a run and those that it continues, as far as they were open at a time or later, the one
    that has recorded a call.
    """
    key = run.key
    while not is_recorded(run.state):
        previous_id = run.state.started.continued_execution_run_id
        if not previous_id or run.state.start_time < since - _MAX_SKEW:
            return None
        try:
            run = await runs.load(key.namespace_id, key.workflow_id, previous_id)
        except WorkflowNotFoundError:
            return None
    return run


async def _change(
    runs: Runs, run: LoadedRun, decide: Callable[[], log_pb2.LogRecord | None]
) -> None:
    """Commit what is decided of a run that has just been loaded; return when it is on disk."""
    try:
        record = decide()
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()


def _caller_of(call: AggregateCall) -> common_pb2.WorkflowExecution:
    return common_pb2.WorkflowExecution(workflow_id=call.caller.name, run_id=call.caller.id)
