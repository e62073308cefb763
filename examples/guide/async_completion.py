"""Asynchronous completion: an activity whose answer comes from elsewhere than its worker."""

import asyncio
from datetime import timedelta

from aetheris_client import Client
from aetheris_worker import Worker, activity, workflow

TASK_QUEUE = "guide-async-completion"
TOKENS: "asyncio.Queue[bytes]" = asyncio.Queue()


@activity.defn
async def ask_a_person(question: str) -> str:
    """Send the question out, with what the answer is to come back with."""
    assert question
    TOKENS.put_nowait(activity.info().task_token)
    activity.raise_complete_async()


@workflow.defn
class Survey:
    """Ask two people."""

    @workflow.run
    async def run(self) -> list[str]:
        """Give what they answer, in a day each."""
        day = timedelta(days=1)
        return [
            await workflow.execute_activity(
                ask_a_person, "tea?", activity_id="tea", start_to_close_timeout=day
            ),
            await workflow.execute_activity(
                ask_a_person, "milk?", activity_id="milk", start_to_close_timeout=day
            ),
        ]


async def main() -> None:
    """Answer in their place."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Survey], activities=[ask_a_person]),
    ):
        survey = await client.start_workflow(Survey.run, id="survey-1", task_queue=TASK_QUEUE)

        by_token = client.get_async_activity_handle(task_token=await TOKENS.get())
        await by_token.heartbeat("asked")
        await by_token.complete("yes")

        await TOKENS.get()
        by_id = client.get_async_activity_handle(workflow_id="survey-1", activity_id="milk")
        await by_id.complete("no")

        assert await survey.result() == ["yes", "no"]


if __name__ == "__main__":
    asyncio.run(main())
