"""UpdateWorkflow, PollWorkflowUpdate: a request to the run's code, followed to where it is awaited.

Asking again with the same id is the same update: it is looked for in the run, and, where that goes
on from another and is young, in the one that it goes on from.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import TypeVar

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris_server.errors import (
    RequestError,
    UpdateNotFoundError,
    WorkflowClosedError,
)
from aetheris_server.history.runs.events import read_events
from aetheris_server.history.runs.repeats import load_for_request
from aetheris_server.history.runs.run import AdmittedUpdate, LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.updates import forget_unwanted
from aetheris_server.history.state.machines.lifecycle.successor import find_next_run_id
from aetheris_server.history.state.machines.update.admitting import (
    abandoned_update,
    check_admittable,
)
from aetheris_server.history.state.machines.update.values import (
    CompletedUpdate,
    OpenUpdate,
    find_update,
)
from aetheris_server.history.times import from_duration

UpdateRequest = workflow_service_pb2.UpdateWorkflowRequest
UpdateResponse = workflow_service_pb2.UpdateWorkflowResponse
PollRequest = workflow_service_pb2.PollWorkflowUpdateRequest
PollResponse = workflow_service_pb2.PollWorkflowUpdateResponse

R = TypeVar("R", UpdateResponse, PollResponse)

_Stage = workflow_pb2.UpdateStage.ValueType


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a call is about.

    Attributes:
        execution: An empty run id is the newest run.
        is_bound: It is about that run alone, and none that goes on from it.
        first_run_id: Of the chain that it is meant for; empty for any.
        request: Asked for, where no run knows the id; None where that is an error.
    """

    namespace_id: str
    execution: common_pb2.WorkflowExecution
    update_id: str
    stage: _Stage
    is_bound: bool
    first_run_id: str = ""
    request: history_pb2.UpdateRequest | None = None


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far an update has come, and in which run."""

    run: LoadedRun
    stage: _Stage
    outcome: history_pb2.UpdateOutcome | None = None


async def update_workflow(runs: Runs, namespace_id: str, request: UpdateRequest) -> UpdateResponse:
    """Have the run's code judge an update, unless that was done before, and wait for as long as
    the frontend has filled in.

    Raises:
        WorkflowNotFoundError: There is no such run.
        WorkflowClosedError: It has closed, and does not know the update.
        WorkflowNotReadyError: Its code does not run now.
        UpdateLimitError: It has as many updates as it may.
    """
    wanted = _Wanted(
        namespace_id,
        request.workflow_execution,
        request.request.update_id,
        request.wait_stage,
        bool(request.workflow_execution.run_id),
        request.first_execution_run_id,
        request.request,
    )
    reached = await _follow(runs, wanted, from_duration(request.wait_timeout).total_seconds())
    return _fill(UpdateResponse(), wanted, reached)


async def poll_workflow_update(runs: Runs, namespace_id: str, request: PollRequest) -> PollResponse:
    """Wait for an update that was asked for before, for as long as the frontend has filled in.

    Raises:
        WorkflowNotFoundError: There is no such run.
        UpdateNotFoundError: It does not know the update.
    """
    wanted = _Wanted(
        namespace_id,
        request.workflow_execution,
        request.update_id,
        request.wait_stage,
        bool(request.workflow_execution.run_id),
    )
    reached = await _follow(runs, wanted, from_duration(request.wait_timeout).total_seconds())
    return _fill(PollResponse(), wanted, reached)


def _fill(response: R, wanted: _Wanted, reached: _Reached) -> R:
    response.workflow_execution.workflow_id = reached.run.key.workflow_id
    response.workflow_execution.run_id = reached.run.key.run_id
    response.update_id = wanted.update_id
    response.stage = reached.stage
    if reached.outcome is not None:
        response.outcome.CopyFrom(reached.outcome)
    return response


async def _follow(runs: Runs, wanted: _Wanted, timeout: float) -> _Reached:
    """Wait until the update is as far as is wanted, or the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        run = await _find_run(runs, wanted)
        admitted = await _admit(runs, run, wanted)
        try:
            reached = await _wait_stage(runs, run, admitted, wanted, deadline)
        finally:
            if admitted is not None:
                admitted.waiter_count -= 1
                admitted.left_at = runs.clock.monotonic()
        if reached is not None:
            return reached
        if not run.is_dropped:
            # It has closed, and the update with it, unless it goes on as another.
            assert run.state.close_event is not None
            successor_id = find_next_run_id(run.state.close_event)
            if not successor_id or wanted.is_bound:
                raise WorkflowClosedError(run.key.workflow_id, run.key.run_id)
            wanted = replace(wanted, execution=_execution(run, successor_id))


async def _find_run(runs: Runs, wanted: _Wanted) -> LoadedRun:
    """The run that knows the update, or else the one that is meant."""
    return await load_for_request(
        runs,
        wanted.namespace_id,
        wanted.execution,
        wanted.first_run_id,
        lambda state: find_update(state, wanted.update_id) is not None,
    )


async def _admit(runs: Runs, run: LoadedRun, wanted: _Wanted) -> AdmittedUpdate | None:
    """The update as it waits to be judged, with one that waits for it more; None if the run knows
    what came of it. Awaits nothing but that a refusal is founded.
    """
    try:
        admitted = try_admit(runs, run, wanted.update_id, wanted.request)
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    if admitted is not None:
        admitted.waiter_count += 1
        runs.updates.offer(run)
    return admitted


def try_admit(
    runs: Runs, run: LoadedRun, update_id: str, request: history_pb2.UpdateRequest | None
) -> AdmittedUpdate | None:
    """Have an update wait to be judged, unless it does; None if the run knows what came of it.

    Never awaits.

    Raises:
        UpdateNotFoundError: The run does not know it, and there is no request.
        RequestError: See `check_admittable`.
    """
    if find_update(run.state, update_id) is not None:
        return None
    admitted = run.updates.get(update_id)
    if admitted is not None:
        return admitted
    if request is None:
        raise UpdateNotFoundError(run.key.workflow_id, run.key.run_id, update_id)
    at = runs.clock.monotonic()
    forget_unwanted(run, at)
    check_admittable(run.state, run.updates, runs.limits_of(run))
    admitted = AdmittedUpdate(request, runs.time_of(run), left_at=at)
    run.updates[update_id] = admitted
    return admitted


async def _wait_stage(
    runs: Runs,
    run: LoadedRun,
    admitted: AdmittedUpdate | None,
    wanted: _Wanted,
    deadline: float,
) -> _Reached | None:
    """None where the run can say no more of it: it has left memory, or closed."""
    try:
        async with asyncio.timeout_at(deadline):
            while (stage := _stage_of(run, admitted, wanted.update_id)) is not None:
                if stage >= wanted.stage:
                    break
                await run.wait_changed()
                if run.is_dropped:
                    return None
    except TimeoutError:
        stage = _stage_of(run, admitted, wanted.update_id)
    if stage is None:
        await run.wait_committed()
        return None
    if stage == workflow_pb2.UPDATE_STAGE_COMPLETED:
        outcome = await _read_outcome(runs, run, admitted, wanted.update_id)
        return _Reached(run, stage, outcome)
    await run.wait_committed()
    return _Reached(run, stage)


def _stage_of(run: LoadedRun, admitted: AdmittedUpdate | None, update_id: str) -> _Stage | None:
    """How far it has come as far as memory tells; None if the run has closed without it."""
    match find_update(run.state, update_id):
        case CompletedUpdate():
            return workflow_pb2.UPDATE_STAGE_COMPLETED
        case OpenUpdate():
            # Its outcome is that the run has closed.
            if not run.state.is_open:
                return workflow_pb2.UPDATE_STAGE_COMPLETED
            return workflow_pb2.UPDATE_STAGE_ACCEPTED
        case None:
            if admitted is not None and admitted.rejection is not None:
                return workflow_pb2.UPDATE_STAGE_COMPLETED
            return workflow_pb2.UPDATE_STAGE_ADMITTED if run.state.is_open else None


async def _read_outcome(
    runs: Runs, run: LoadedRun, admitted: AdmittedUpdate | None, update_id: str
) -> history_pb2.UpdateOutcome:
    known = find_update(run.state, update_id)
    await run.wait_committed()
    match known:
        case CompletedUpdate(completed_event_id=event_id):
            (event,) = await read_events(runs.db, run, event_id, event_id + 1, 1)
            return event.workflow_execution_update_completed_event_attributes.outcome
        case OpenUpdate():
            return history_pb2.UpdateOutcome(failure=abandoned_update())
        case None:
            assert admitted is not None
            return history_pb2.UpdateOutcome(failure=admitted.rejection)


def _execution(run: LoadedRun, run_id: str) -> common_pb2.WorkflowExecution:
    return common_pb2.WorkflowExecution(workflow_id=run.key.workflow_id, run_id=run_id)
