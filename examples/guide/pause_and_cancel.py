"""Pause and cancel: hold a run or an activity, have it go on, and end it in good order."""

import asyncio
from datetime import timedelta

from aetheris_client import Client, WorkflowStatus
from aetheris_client.errors import CancelledError, WorkflowFailedError
from aetheris_worker import Worker, activity, workflow

TASK_QUEUE = "guide-pause-and-cancel"
LONG = timedelta(minutes=5)


@activity.defn
async def copy_all() -> str:
    """Take for ever at first; the attempt after one that was interrupted ends at once."""
    if activity.info().heartbeat_details:
        return "copied"
    activity.heartbeat("begun")
    await asyncio.Event().wait()
    return "never"


@activity.defn
async def clean_up() -> None:
    """Put things in order."""


@workflow.defn
class Copy:
    """Copy, and clean up whatever becomes of it."""

    @workflow.run
    async def run(self) -> str:
        """Copy."""
        try:
            return await workflow.execute_activity(
                copy_all, heartbeat_timeout=timedelta(seconds=30), start_to_close_timeout=LONG
            )
        finally:
            # Cancellation is thrown once: what comes here runs to its end.
            await workflow.execute_activity(clean_up, start_to_close_timeout=LONG)


async def until_it_runs(client: Client, workflow_id: str) -> str:
    """The id of the activity, once a worker has it and has said so."""
    while True:
        run = await client.get_workflow_handle(workflow_id).describe()
        for pending in run.pending_activities:
            if pending.heartbeat_details:
                return pending.activity_id
        await asyncio.sleep(0.05)


async def main() -> None:
    """Pause a run, then its activity, and cancel another run."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Copy], activities=[copy_all, clean_up]),
    ):
        held = await client.start_workflow(Copy.run, id="copy-1", task_queue=TASK_QUEUE)
        activity_id = await until_it_runs(client, "copy-1")
        await held.pause(reason="the disk is being moved")
        run = await held.describe()
        assert run.status is WorkflowStatus.PAUSED
        assert run.pause is not None
        print(f"paused: {run.pause.reason}")

        # What a worker has goes on while the run is paused; an activity is interrupted by its own.
        await held.pause_activity(activity_id, reason="stop copying")
        await held.unpause_activity(activity_id, reason="copy again")
        await held.unpause(reason="moved")
        assert await held.result() == "copied"

        cancelled = await client.start_workflow(Copy.run, id="copy-2", task_queue=TASK_QUEUE)
        await until_it_runs(client, "copy-2")
        await cancelled.cancel(reason="not needed")
        is_cancelled = False
        try:
            await cancelled.result()
        except WorkflowFailedError as error:
            is_cancelled = isinstance(error.cause, CancelledError)
        assert is_cancelled


if __name__ == "__main__":
    asyncio.run(main())
