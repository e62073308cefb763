"""`aetheris-admin task-queue`."""

from typing import Annotated

import typer

from aetheris_client.admin import tables
from aetheris_client.admin.session import Session, command
from aetheris_client.enums import TaskQueueType

app = typer.Typer(help="Task queues.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Task queues: who polls them, and what waits in them."""


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
        queues, lambda: tables.pollers_table(queues), lambda: tables.backlogs_table(queues)
    )
