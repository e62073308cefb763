"""UpdateWorkflowOptions: settings of an open run change, once per request id."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.runs.repeats import load_for_request
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.options import decide_options_updated
from aetheris_server.history.state.run_options import has_recorded, pinned_build_id


async def update_workflow_options(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.UpdateWorkflowOptionsRequest
) -> workflow_service_pb2.UpdateWorkflowOptionsResponse:
    """Record what is to hold; answer, when it is on disk, with what does.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
        WorkflowClosedError: The run has closed.
    """
    run = await load_for_request(
        runs,
        namespace_id,
        request.workflow_execution,
        request.first_execution_run_id,
        lambda state: has_recorded(state, request.request_id),
    )
    try:
        record = decide_options_updated(run.state, run.inflight, request, runs.time_of(run))
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if record is not None:
        runs.commit(run, record)
        _offer_anew(runs, run)
    response = workflow_service_pb2.UpdateWorkflowOptionsResponse(
        pinned_build_id=pinned_build_id(run.state)
    )
    await run.wait_committed()
    return response


def _offer_anew(runs: Runs, run: LoadedRun) -> None:
    """What waits for the run's code and is no task of its state goes to the other build, too."""
    runs.updates.offer(run)
    if run.state.workflow_task is None:
        runs.queries.offer_all(run)
