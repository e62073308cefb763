"""`aetheris-admin workflow`: the commands about updates."""

from datetime import timedelta
from typing import Annotated

import typer

from aetheris.api.v1.common_pb2 import Payload
from aetheris_client.admin.inputs import parse_duration, parse_inputs
from aetheris_client.admin.layout import Fields
from aetheris_client.admin.options import InputFiles, Inputs, RunId, WorkflowId, choice
from aetheris_client.admin.plain import plain
from aetheris_client.admin.session import Session, command
from aetheris_client.admin.workflow_watch import app
from aetheris_client.enums import UpdateStage
from aetheris_client.errors import WorkflowUpdateFailedError
from aetheris_client.update_handle import WorkflowUpdateHandle

__all__ = ["app"]

_Timeout = Annotated[
    timedelta | None,
    typer.Option(
        parser=parse_duration, metavar="DURATION", help="How long to wait; no limit if absent."
    ),
]


@command(app, "update")
async def update(
    session: Session,
    workflow_id: WorkflowId,
    name: Annotated[str, typer.Argument(metavar="UPDATE", help="The update.")],
    run_id: RunId = None,
    inputs: Inputs = None,
    input_files: InputFiles = None,
    update_id: Annotated[
        str | None, typer.Option("--id", help="Happens once per id; a new one if absent.")
    ] = None,
    wait: Annotated[UpdateStage, choice(UpdateStage, "How far to wait for")] = (
        UpdateStage.COMPLETED
    ),
    timeout: _Timeout = None,
) -> None:
    """Ask a run's code for an update, and print what its handler returned, or why not (exit 1).

    With --wait admitted or accepted, print the update's id once it has come so far: `update-result`
    takes it.
    """
    handle = await session.client.get_workflow_handle(workflow_id, run_id).start_update(
        name,
        *parse_inputs(inputs, input_files),
        wait_for_stage=wait,
        update_id=update_id,
        result_type=Payload,
        timeout=timeout,
    )
    if wait is UpdateStage.COMPLETED:
        await _print_result(session, handle, None)
        return
    session.output.show(
        {"workflow_id": workflow_id, "run_id": handle.run_id, "update_id": handle.id},
        lambda: Fields(
            [
                ("Workflow id", workflow_id),
                ("Run id", handle.run_id or ""),
                ("Update id", handle.id),
            ]
        ),
    )


@command(app, "update-result")
async def update_result(
    session: Session,
    workflow_id: WorkflowId,
    update_id: Annotated[str, typer.Argument(metavar="UPDATE_ID", help="The update's id.")],
    run_id: RunId = None,
    timeout: _Timeout = None,
) -> None:
    """Wait for an update's outcome, and print what its handler returned, or why not (exit 1)."""
    run = session.client.get_workflow_handle(workflow_id, run_id)
    handle = run.get_update_handle(update_id, result_type=Payload)
    await _print_result(session, handle, timeout)


async def _print_result(
    session: Session, handle: WorkflowUpdateHandle[object], timeout: timedelta | None
) -> None:
    try:
        result = await handle.result(timeout=timeout)
    except WorkflowUpdateFailedError as error:
        session.output.error(str(error))
        raise typer.Exit(1) from None
    value = plain(result) if isinstance(result, Payload) else result
    if not session.output.is_for_people:
        value = {"workflow_id": handle.workflow_id, "update_id": handle.id, "result": value}
    session.output.document(value)
