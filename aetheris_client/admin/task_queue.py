"""`aetheris-admin task-queue`."""

from typing import Annotated

import typer

from aetheris_client.admin import tables
from aetheris_client.admin.options import given_build
from aetheris_client.admin.session import Session, command
from aetheris_client.enums import TaskQueueType

app = typer.Typer(help="Task queues.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Task queues: who polls them, what waits in them, and which build they prefer."""


@command(app, "describe")
async def describe(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task queue.")],
    queue_type: Annotated[
        TaskQueueType | None,
        typer.Option("--type", case_sensitive=False, help="One of its sides; both if absent."),
    ] = None,
) -> None:
    """Show who polls a task queue, and what waits in it."""
    sides = list(TaskQueueType) if queue_type is None else [queue_type]
    queues = [await session.client.operator.describe_task_queue(name, side) for side in sides]
    session.output.show(
        queues,
        lambda: tables.builds_line(queues),
        lambda: tables.pollers_table(queues),
        lambda: tables.backlogs_table(queues),
    )


@command(app, "update")
async def update(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task queue.")],
    default_build_id: Annotated[
        str | None,
        typer.Option(
            metavar="BUILD",
            help="Workflow tasks of runs that are not pinned go only to workers of it.",
        ),
    ] = None,
    any_build: Annotated[
        bool, typer.Option("--any-build", help="They go to workers of any build.")
    ] = False,
) -> None:
    """Change which build a task queue prefers; tasks that wait follow at once."""
    build_id = given_build(default_build_id, "--default-build-id", any_build, "--any-build")
    await session.client.operator.update_task_queue(name, default_build_id=build_id)
    if session.output.is_for_people:
        session.output.line(f"task queue {name}: default build {build_id or 'any'}")
    else:
        session.output.show({"task_queue": name, "default_build_id": build_id})
