"""StartWorkflow: at most one open run per workflow id, at most one run per request id."""

from collections.abc import Callable

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris_server.errors import InvalidArgumentError, WorkflowAlreadyStartedError
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.runs.beginning import find_begun_by, start_time_after
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated
from aetheris_server.history.state.machines.lifecycle.start import Parent, decide_started
from aetheris_server.history.state.run import RunKey
from aetheris_server.ids import new_run_id
from aetheris_server.storage.executions import NewestRun

AppendFirst = Callable[[Draft], None]
"""Appends what a new run's code is to find when it is first called."""


def _nothing(_run: LoadedRun) -> None:
    """Most starts are all that there is to do."""


async def start_workflow(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.StartWorkflowRequest,
    append_first: AppendFirst | None = None,
    parent: Parent | None = None,
    on_begun: Callable[[LoadedRun], None] = _nothing,
) -> workflow_service_pb2.StartWorkflowResponse:
    """Start a run, or answer with the one that the request or the policies name.

    Args:
        runs: Those of this host.
        namespace_id: Of the run.
        request: As checked by the frontend.
        append_first: Called with the draft of a new run's first record.
        parent: The run of which it is a child.
        on_begun: Called with a new run before any of its tasks is offered.

    Raises:
        WorkflowAlreadyStartedError: A run has the workflow id, and the policies forbid another.
    """
    newest = await runs.load_newest(namespace_id, request.workflow_id)
    if newest is None:
        begun = _start(runs, namespace_id, request, None, append_first, parent, on_begun)
        return await _finish(begun)
    earlier = await find_begun_by(
        runs, namespace_id, request.workflow_id, request.request_id, newest
    )
    if earlier is not None:
        return await _answer(runs, namespace_id, request, earlier, started=True)
    if newest != await runs.load_newest(namespace_id, request.workflow_id):
        # Somebody was faster.
        return await start_workflow(runs, namespace_id, request, append_first, parent, on_begun)
    if newest.close_time is not None:
        _check_reuse(request, newest)
        begun = _start(runs, namespace_id, request, newest, append_first, parent, on_begun)
        return await _finish(begun)
    match request.workflow_id_conflict_policy:
        case workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
            return await _answer(runs, namespace_id, request, newest.run_id, started=False)
        case workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING:
            return await _replace(runs, namespace_id, request, newest, append_first, parent)
        case (
            workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_UNSPECIFIED
            | workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_FAIL
        ):
            raise _already_started(request, newest)
        case unknown:
            raise _unknown_policy("workflow_id_conflict_policy", unknown)


def _check_reuse(request: workflow_service_pb2.StartWorkflowRequest, newest: NewestRun) -> None:
    match request.workflow_id_reuse_policy:
        case workflow_pb2.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE:
            raise _already_started(request, newest)
        case workflow_pb2.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY:
            if newest.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED:
                raise _already_started(request, newest)
        case (
            workflow_pb2.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED
            | workflow_pb2.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
        ):
            pass
        case unknown:
            raise _unknown_policy("workflow_id_reuse_policy", unknown)


def _unknown_policy(field: str, policy: int) -> InvalidArgumentError:
    """A frontend of a newer version let it pass."""
    return InvalidArgumentError(field, f"expected a policy of this version, found {policy}")


def _already_started(
    request: workflow_service_pb2.StartWorkflowRequest, newest: NewestRun
) -> WorkflowAlreadyStartedError:
    return WorkflowAlreadyStartedError(request.workflow_id, newest.run_id, newest.start_request_id)


def _start(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.StartWorkflowRequest,
    previous: NewestRun | None,
    append_first: AppendFirst | None,
    parent: Parent | None,
    on_begun: Callable[[LoadedRun], None],
) -> tuple[str, Transition]:
    key = RunKey(namespace_id, request.workflow_id, new_run_id())
    record = decide_started(key, request, start_time_after(runs, previous), append_first, parent)
    run = runs.create(key, record, repeats_id=previous is not None)
    transition = runs.commit(run, record)
    on_begun(run)
    return key.run_id, transition


async def _finish(
    started: tuple[str, Transition],
) -> workflow_service_pb2.StartWorkflowResponse:
    run_id, transition = started
    await transition.ticket.wait()
    return workflow_service_pb2.StartWorkflowResponse(
        run_id=run_id, started=True, first_execution_run_id=run_id
    )


async def _answer(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.StartWorkflowRequest,
    run_id: str,
    *,
    started: bool,
) -> workflow_service_pb2.StartWorkflowResponse:
    """Answer with a run that is there, once it is on disk."""
    run = await runs.load(namespace_id, request.workflow_id, run_id)
    await run.wait_committed()
    return workflow_service_pb2.StartWorkflowResponse(
        run_id=run_id,
        started=started,
        first_execution_run_id=run.state.started.first_execution_run_id,
    )


async def _replace(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.StartWorkflowRequest,
    newest: NewestRun,
    append_first: AppendFirst | None,
    parent: Parent | None,
) -> workflow_service_pb2.StartWorkflowResponse:
    """Terminate the open run and start a new one: both are written, or neither."""
    old = await runs.load(namespace_id, request.workflow_id, newest.run_id)
    if not old.state.is_open:
        return await start_workflow(runs, namespace_id, request, append_first, parent)
    now = max(start_time_after(runs, newest), runs.time_of(old))
    key = RunKey(namespace_id, request.workflow_id, new_run_id())
    terminated = decide_terminated(
        old.state,
        old.inflight,
        reason=f"replaced by run {key.run_id}",
        details=None,
        identity=request.identity,
        request_id=request.request_id,
        now=now,
    )
    assert terminated is not None
    started = decide_started(key, request, now, append_first, parent)
    running = runs.notices.of_all(old)
    new = runs.create(key, started, repeats_id=True)
    transition = runs.commit(old, terminated, (new, started))
    response = await _finish((key.run_id, transition))
    runs.notices.send(running)
    return response
