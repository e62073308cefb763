"""SignalWithStartWorkflow: an open run gets a signal, or a new run begins with it.

    newest run            then
    none, or closed  ──►  started and signalled, in one record
    open             ──►  signalled, as by SignalWorkflow
    open, to replace ──►  terminated; the new one started and signalled; all in one commit

One request id names both: a repeated request finds the run that it started or signalled, also
where that has closed meanwhile.
"""

from datetime import timedelta
from functools import partial

from aetheris.api.v1 import common_pb2, workflow_pb2, workflow_service_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.api.start_workflow import start_workflow
from aetheris_server.history.runs.repeats import load_for_request
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.signal import append_signaled, decide_signaled

Request = workflow_service_pb2.SignalWithStartWorkflowRequest
Response = workflow_service_pb2.SignalWithStartWorkflowResponse

# For so long after its close a run is looked at for a request that comes again.
_REPEAT_TIME = timedelta(minutes=10)


async def signal_with_start_workflow(runs: Runs, namespace_id: str, request: Request) -> Response:
    """Record the signal, in a run that is started for it if none is open.

    Raises:
        WorkflowAlreadyStartedError: A closed run has the workflow id, and the reuse policy forbids
            another.
        InvalidArgumentError: The open run has had too many signals.
    """
    start = request.start
    replaces = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
    if start.workflow_id_conflict_policy != replaces:
        start.workflow_id_conflict_policy = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
    signal = _to_signal(request)
    while True:
        run = await _find_taker(runs, namespace_id, start)
        if run is not None:
            return await _signal(runs, run, signal)
        append_first = partial(append_signaled, request=signal)
        response = await start_workflow(runs, namespace_id, start, append_first)
        if response.started:
            return Response(
                run_id=response.run_id,
                started=True,
                first_execution_run_id=response.first_execution_run_id,
            )
        # Somebody else has started one meanwhile.


def _to_signal(request: Request) -> workflow_service_pb2.SignalWorkflowRequest:
    return workflow_service_pb2.SignalWorkflowRequest(
        signal_name=request.signal_name,
        input=request.signal_input if request.HasField("signal_input") else None,
        identity=request.start.identity,
        request_id=request.start.request_id,
        header=request.signal_header if request.HasField("signal_header") else None,
    )


async def _find_taker(
    runs: Runs, namespace_id: str, start: workflow_service_pb2.StartWorkflowRequest
) -> LoadedRun | None:
    """The run that takes the signal, or has taken it; None where one must be started.

    Nothing has been awaited since it was in that state.
    """
    newest = await runs.load_newest(namespace_id, start.workflow_id)
    if newest is None:
        return None
    if newest.close_time is not None and newest.close_time + _REPEAT_TIME < runs.clock.now():
        return None
    run = await load_for_request(
        runs,
        namespace_id,
        common_pb2.WorkflowExecution(workflow_id=start.workflow_id, run_id=newest.run_id),
        "",
        lambda state: start.request_id in state.request_ids,
    )
    if start.request_id in run.state.request_ids:
        return run
    replaces = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
    is_taker = run.state.is_open and start.workflow_id_conflict_policy != replaces
    return run if is_taker else None


async def _signal(
    runs: Runs, run: LoadedRun, signal: workflow_service_pb2.SignalWorkflowRequest
) -> Response:
    state = run.state
    try:
        record = decide_signaled(
            state,
            run.inflight,
            signal,
            runs.time_of(run),
            runs.limits_of(run),
            ends_delay=True,
        )
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()
    return Response(
        run_id=run.key.run_id,
        started=state.started.request_id == signal.request_id,
        first_execution_run_id=state.started.first_execution_run_id,
    )
