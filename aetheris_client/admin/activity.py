"""`aetheris-admin activity`: the commands that steer a run's open activities."""

from datetime import timedelta
from typing import Annotated

import typer

from aetheris_client.activity_options import ActivityOptionsUpdate
from aetheris_client.admin import tables
from aetheris_client.admin.inputs import parse_duration
from aetheris_client.admin.options import Reason, RunId, WorkflowId
from aetheris_client.admin.session import Session, command

app = typer.Typer(
    help="Open activities of a run: pause, unpause, reset, change.", no_args_is_help=True
)

ActivityId = Annotated[str, typer.Argument(metavar="ACTIVITY_ID", help="Of an open activity.")]
ResetHeartbeat = Annotated[
    bool, typer.Option("--reset-heartbeat", help="Forget what its heartbeats said.")
]
Jitter = Annotated[
    timedelta | None,
    typer.Option(
        parser=parse_duration, metavar="DURATION", help="Go on at a random time within this."
    ),
]


def _timeout(text: str) -> object:
    """An option that takes a duration, of which zero is none."""
    return typer.Option(parser=parse_duration, metavar="DURATION", help=f"{text}; 0s for none.")


@command(app, "pause")
async def pause(
    session: Session,
    workflow_id: WorkflowId,
    activity_id: ActivityId,
    run_id: RunId = None,
    reason: Reason = "",
) -> None:
    """Hold an activity: no attempt is given out until it is unpaused; a running one is told."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    await handle.pause_activity(activity_id, reason=reason)
    _done(session, "paused", activity_id, workflow_id, run_id)


@command(app, "unpause")
async def unpause(
    session: Session,
    workflow_id: WorkflowId,
    activity_id: ActivityId,
    run_id: RunId = None,
    reset_attempts: Annotated[
        bool, typer.Option("--reset-attempts", help="The next attempt counts as the first.")
    ] = False,
    reset_heartbeat: ResetHeartbeat = False,
    jitter: Jitter = None,
    reason: Reason = "",
) -> None:
    """Have a paused activity go on; it does not back off any longer."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    await handle.unpause_activity(
        activity_id,
        reset_attempts=reset_attempts,
        reset_heartbeat=reset_heartbeat,
        jitter=jitter,
        reason=reason,
    )
    _done(session, "unpaused", activity_id, workflow_id, run_id)


@command(app, "reset")
async def reset(
    session: Session,
    workflow_id: WorkflowId,
    activity_id: ActivityId,
    run_id: RunId = None,
    keep_paused: Annotated[
        bool, typer.Option("--keep-paused", help="Leave it paused, if it is.")
    ] = False,
    reset_heartbeat: ResetHeartbeat = False,
    jitter: Jitter = None,
    reason: Reason = "",
) -> None:
    """Have an activity begin anew, with its first attempt and its whole time."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    await handle.reset_activity(
        activity_id,
        keep_paused=keep_paused,
        reset_heartbeat=reset_heartbeat,
        jitter=jitter,
        reason=reason,
    )
    _done(session, "reset", activity_id, workflow_id, run_id)


@command(app, "update-options")
async def update_options(
    session: Session,
    workflow_id: WorkflowId,
    activity_id: ActivityId,
    run_id: RunId = None,
    task_queue: Annotated[
        str | None, typer.Option("--task-queue", "-q", help="Where its attempts go.")
    ] = None,
    schedule_to_close_timeout: Annotated[
        timedelta | None, _timeout("Limit on all attempts together")
    ] = None,
    schedule_to_start_timeout: Annotated[
        timedelta | None, _timeout("Limit on an attempt's wait for a worker")
    ] = None,
    start_to_close_timeout: Annotated[timedelta | None, _timeout("Limit on one attempt")] = None,
    heartbeat_timeout: Annotated[timedelta | None, _timeout("Limit between signs of life")] = None,
    initial_interval: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="DURATION", help="Before the second attempt."),
    ] = None,
    backoff_coefficient: Annotated[
        float | None, typer.Option(help="By how much each wait is longer than the last.")
    ] = None,
    maximum_interval: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="DURATION", help="The longest wait."),
    ] = None,
    maximum_attempts: Annotated[int | None, typer.Option(help="At most; 0 for any number.")] = None,
    non_retryable: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Failures that end it; repeatable; replaces all."),
    ] = None,
    reason: Reason = "",
) -> None:
    """Change how an activity is given out and tried again; of a running one, the next attempt."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    options = await handle.update_activity_options(
        activity_id,
        ActivityOptionsUpdate(
            task_queue=task_queue,
            schedule_to_close_timeout=schedule_to_close_timeout,
            schedule_to_start_timeout=schedule_to_start_timeout,
            start_to_close_timeout=start_to_close_timeout,
            heartbeat_timeout=heartbeat_timeout,
            initial_interval=initial_interval,
            backoff_coefficient=backoff_coefficient,
            maximum_interval=maximum_interval,
            maximum_attempts=maximum_attempts,
            non_retryable_error_types=non_retryable,
        ),
        reason=reason,
    )
    session.output.show(
        {name: getattr(options, name) for name in type(options).__slots__},
        lambda: tables.activity_options_fields(options),
    )


def _done(
    session: Session, what: str, activity_id: str, workflow_id: str, run_id: str | None
) -> None:
    """Say what was done, and to which activity."""
    if session.output.is_for_people:
        run = f" run {run_id}" if run_id else ""
        session.output.line(f"{what}: activity {activity_id} of workflow {workflow_id}{run}")
        return
    session.output.show(
        {
            "workflow_id": workflow_id,
            "run_id": run_id,
            "activity_id": activity_id,
            "done": what,
        }
    )
