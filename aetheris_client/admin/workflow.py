"""`aetheris-admin workflow`: the commands that start and steer runs."""

import uuid
from datetime import timedelta
from typing import Annotated, Any

import typer

from aetheris_client.admin.inputs import parse_duration, parse_inputs, parse_object
from aetheris_client.admin.layout import Fields
from aetheris_client.admin.options import (
    InputFiles,
    Inputs,
    Reason,
    RunId,
    WorkflowId,
    choice,
    given_build,
)
from aetheris_client.admin.points import (
    Build,
    Event,
    Exclude,
    First,
    Last,
    NewRunRequestId,
    to_point,
)
from aetheris_client.admin.session import Session, command
from aetheris_client.enums import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from aetheris_client.handle import WorkflowHandle
from aetheris_client.retry import RetryPolicy

app = typer.Typer(help="Workflows: start, steer, watch, find.", no_args_is_help=True)


def _limit(text: str) -> object:
    """An option that takes a duration."""
    return typer.Option(parser=parse_duration, metavar="DURATION", help=text)


@command(app, "start")
async def start(
    session: Session,
    workflow_type: Annotated[str, typer.Argument(metavar="TYPE", help="The workflow's type.")],
    task_queue: Annotated[str, typer.Option("--task-queue", "-q", help="Where its tasks go.")],
    workflow_id: Annotated[
        str | None, typer.Option("--workflow-id", "-w", help="Its id; a new one if absent.")
    ] = None,
    inputs: Inputs = None,
    input_files: InputFiles = None,
    execution_timeout: Annotated[timedelta | None, _limit("Limit on its chain of runs.")] = None,
    run_timeout: Annotated[timedelta | None, _limit("Limit on one run.")] = None,
    task_timeout: Annotated[timedelta | None, _limit("Limit on one workflow task.")] = None,
    start_delay: Annotated[timedelta | None, _limit("How long its code waits first.")] = None,
    id_reuse_policy: Annotated[
        WorkflowIdReusePolicy | None,
        choice(WorkflowIdReusePolicy, "If a closed run has the id"),
    ] = None,
    id_conflict_policy: Annotated[
        WorkflowIdConflictPolicy | None,
        choice(WorkflowIdConflictPolicy, "If an open run has the id"),
    ] = None,
    memo: Annotated[
        list[str] | None, typer.Option(metavar="NAME=JSON", help="A note on the run; repeatable.")
    ] = None,
    search_attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help="A note for searches, which are to come; repeatable."
        ),
    ] = None,
    retry_attempts: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="COUNT", help="Try a failed run again, so often in all; 0: no limit."
        ),
    ] = None,
    retry_interval: Annotated[
        timedelta | None, _limit("Wait before the second attempt, 1 s if absent; it doubles.")
    ] = None,
    retry_backoff: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="Each wait is the last one times this; 2 if absent."),
    ] = None,
    retry_max_interval: Annotated[timedelta | None, _limit("No wait is longer.")] = None,
    non_retryable: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Errors that are not tried again; repeatable."),
    ] = None,
    pinned_build_id: Annotated[
        str | None,
        typer.Option(metavar="BUILD", help="Its workflow tasks go only to workers of it."),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Makes the start idempotent; a new one if absent.")
    ] = None,
    start_signal: Annotated[
        str | None,
        typer.Option(
            metavar="SIGNAL", help="The run begins with it; an open run of the id gets it instead."
        ),
    ] = None,
    signal_input: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help="An argument of the signal; repeatable, in order."),
    ] = None,
) -> None:
    """Start a run, and show its ids."""
    handle = await session.client.start_workflow(
        workflow_type,
        *parse_inputs(inputs, input_files),
        id=workflow_id or str(uuid.uuid4()),
        task_queue=task_queue,
        execution_timeout=execution_timeout,
        run_timeout=run_timeout,
        task_timeout=task_timeout,
        start_delay=start_delay,
        retry_policy=_retry_policy(
            retry_attempts, retry_interval, retry_backoff, retry_max_interval, non_retryable
        ),
        id_reuse_policy=id_reuse_policy,
        id_conflict_policy=id_conflict_policy,
        memo=parse_object(memo, "--memo"),
        search_attributes=parse_object(search_attribute, "--search-attribute"),
        pinned_build_id=pinned_build_id,
        request_id=request_id or uuid.uuid4().hex,
        start_signal=start_signal,
        start_signal_args=parse_inputs(signal_input, None, "--signal-input"),
    )
    session.output.show(
        {"workflow_id": handle.id, "run_id": handle.run_id, "started": handle.is_new},
        lambda: Fields(
            [
                ("Workflow id", handle.id),
                ("Run id", handle.run_id or ""),
                ("Started", "yes" if handle.is_new else "no, this run was open already"),
            ]
        ),
    )


def _retry_policy(
    attempts: int | None,
    interval: timedelta | None,
    backoff: float | None,
    max_interval: timedelta | None,
    non_retryable: list[str] | None,
) -> RetryPolicy | None:
    """The policy that the options say; None where there are none of them."""
    given = {
        "maximum_attempts": attempts,
        "initial_interval": interval,
        "backoff_coefficient": backoff,
        "maximum_interval": max_interval,
        "non_retryable_error_types": non_retryable or None,
    }
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not said:
        return None
    try:
        return RetryPolicy(**said)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None


@command(app, "signal")
async def signal(
    session: Session,
    workflow_id: WorkflowId,
    name: Annotated[str, typer.Argument(metavar="SIGNAL", help="The signal.")],
    run_id: RunId = None,
    inputs: Inputs = None,
    input_files: InputFiles = None,
    request_id: Annotated[
        str | None, typer.Option(help="Recorded once per id; a new one if absent.")
    ] = None,
) -> None:
    """Send a signal to an open run."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    await handle.signal(name, *parse_inputs(inputs, input_files), request_id=request_id)
    _done(session, f"signalled {name}", workflow_id, run_id)


@command(app, "cancel")
async def cancel(
    session: Session, workflow_id: WorkflowId, run_id: RunId = None, reason: Reason = ""
) -> None:
    """Ask an open run to cancel; its code decides what that means."""
    await session.client.get_workflow_handle(workflow_id, run_id).cancel(reason=reason)
    _done(session, "requested cancellation", workflow_id, run_id)


@command(app, "terminate")
async def terminate(
    session: Session, workflow_id: WorkflowId, run_id: RunId = None, reason: Reason = ""
) -> None:
    """Close an open run at once, without asking its code."""
    await session.client.get_workflow_handle(workflow_id, run_id).terminate(reason=reason)
    _done(session, "terminated", workflow_id, run_id)


@command(app, "reset")
async def reset(
    session: Session,
    workflow_id: WorkflowId,
    run_id: RunId = None,
    first: First = False,
    last: Last = False,
    event: Event = None,
    build: Build = None,
    exclude: Exclude = None,
    reason: Reason = "",
    request_id: NewRunRequestId = None,
) -> None:
    """Begin a run again from a point of it; the open run is terminated in the same moment."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    new = await handle.reset(
        to_point(first=first, last=last, event=event, build=build),
        exclude=exclude or (),
        reason=reason,
        request_id=request_id,
    )
    _show_new(session, new)


@command(app, "fork")
async def fork(
    session: Session,
    workflow_id: WorkflowId,
    new_id: Annotated[str, typer.Argument(metavar="NEW_ID", help="The new workflow id.")],
    run_id: RunId = None,
    first: First = False,
    last: Last = False,
    event: Event = None,
    build: Build = None,
    exclude: Exclude = None,
    reason: Reason = "",
    request_id: NewRunRequestId = None,
) -> None:
    """Begin a run again from a point of it, as another workflow; the run itself goes on."""
    new = await session.client.fork_workflow(
        session.client.get_workflow_handle(workflow_id, run_id),
        to_point(first=first, last=last, event=event, build=build),
        id=new_id,
        exclude=exclude or (),
        reason=reason,
        request_id=request_id,
    )
    _show_new(session, new)


def _show_new(session: Session, new: WorkflowHandle[Any]) -> None:
    session.output.show(
        {"workflow_id": new.id, "run_id": new.run_id},
        lambda: Fields([("Workflow id", new.id), ("Run id", new.run_id or "")]),
    )


@command(app, "pause")
async def pause(
    session: Session, workflow_id: WorkflowId, run_id: RunId = None, reason: Reason = ""
) -> None:
    """Hold an open run: none of its tasks is given out until it is unpaused."""
    await session.client.get_workflow_handle(workflow_id, run_id).pause(reason=reason)
    _done(session, "paused", workflow_id, run_id)


@command(app, "unpause")
async def unpause(
    session: Session, workflow_id: WorkflowId, run_id: RunId = None, reason: Reason = ""
) -> None:
    """Have a paused run go on."""
    await session.client.get_workflow_handle(workflow_id, run_id).unpause(reason=reason)
    _done(session, "unpaused", workflow_id, run_id)


@command(app, "update-options")
async def update_options(
    session: Session,
    workflow_id: WorkflowId,
    run_id: RunId = None,
    pinned_build_id: Annotated[
        str | None,
        typer.Option(metavar="BUILD", help="Its workflow tasks go only to workers of it."),
    ] = None,
    unpin: Annotated[
        bool, typer.Option("--unpin", help="They go to the build that its task queue prefers.")
    ] = False,
    reason: Reason = "",
) -> None:
    """Pin an open run to a build, or move it to another; a task that waits follows at once."""
    build_id = given_build(pinned_build_id, "--pinned-build-id", unpin, "--unpin")
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    await handle.update_options(pinned_build_id=build_id, reason=reason)
    _done(session, f"pinned to {build_id}" if build_id else "unpinned", workflow_id, run_id)


def _done(session: Session, what: str, workflow_id: str, run_id: str | None) -> None:
    """Say what was done, and to whom."""
    if session.output.is_for_people:
        run = f" run {run_id}" if run_id else ""
        session.output.line(f"{what}: workflow {workflow_id}{run}")
    else:
        session.output.show({"workflow_id": workflow_id, "run_id": run_id, "done": what})
