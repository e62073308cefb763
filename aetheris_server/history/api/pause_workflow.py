"""PauseWorkflow and UnpauseWorkflow: nothing of a run is given out for a while."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.pause import decide_paused, decide_unpaused


async def pause_workflow(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.PauseWorkflowRequest
) -> workflow_service_pb2.PauseWorkflowResponse:
    """Hold a run; answer when that is on disk.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
        WorkflowClosedError: The run has closed.
    """
    execution = request.workflow_execution
    run = await runs.load(
        namespace_id, execution.workflow_id, execution.run_id, request.first_execution_run_id
    )
    try:
        record = decide_paused(run.state, run.inflight, request, runs.time_of(run))
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()
    if record is not None and run.inflight.workflow_task is None:
        # Those that were to go along with a workflow task, which is not given out now.
        runs.queries.offer_all(run)
    return workflow_service_pb2.PauseWorkflowResponse()


async def unpause_workflow(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.UnpauseWorkflowRequest
) -> workflow_service_pb2.UnpauseWorkflowResponse:
    """Have a run go on; answer when that is on disk. What waited is offered.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
        WorkflowClosedError: The run has closed.
    """
    execution = request.workflow_execution
    run = await runs.load(
        namespace_id, execution.workflow_id, execution.run_id, request.first_execution_run_id
    )
    try:
        record = decide_unpaused(run.state, run.inflight, request, runs.time_of(run))
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
        runs.updates.offer(run)
    await run.wait_committed()
    return workflow_service_pb2.UnpauseWorkflowResponse()
