"""SignalWorkflow: recorded once per request id."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.runs.repeats import load_for_request
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.signal import decide_signaled


async def signal_workflow(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.SignalWorkflowRequest
) -> workflow_service_pb2.SignalWorkflowResponse:
    """Record a signal; answer when it is on disk.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
        WorkflowClosedError: The run has closed.
    """
    run = await load_for_request(
        runs,
        namespace_id,
        request.workflow_execution,
        request.first_execution_run_id,
        lambda state: request.request_id in state.request_ids,
    )
    try:
        record = decide_signaled(
            run.state,
            run.inflight,
            request,
            runs.time_of(run),
            runs.limits_of(run),
        )
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()
    return workflow_service_pb2.SignalWorkflowResponse()
