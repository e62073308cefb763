"""Continue-as-new: a conversation without end, in runs that stay short."""

import asyncio

from aetheris_client import Client
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-continue-as-new"
TURNS_IN_A_RUN = 3


@workflow.defn
class Conversation:
    """Answer what is said, turn by turn, and remember all of it."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._is_over = False

    @workflow.run
    async def run(self, turns: list[str], is_over: bool = False) -> list[str]:
        """Give all turns of all runs; the arguments are what the run before knew."""
        self._is_over = self._is_over or is_over
        answered = 0
        while self._said or not self._is_over:
            if answered == TURNS_IN_A_RUN:
                # The new run knows what it is given, and nothing else.
                workflow.continue_as_new([*turns, *self._said], self._is_over)
            await workflow.wait_condition(lambda: bool(self._said) or self._is_over)
            if self._said:
                turns = [*turns, self._said.pop(0)]
                answered += 1
                workflow.upsert_memo({"turns": len(turns)})
        return turns

    @workflow.signal
    def say(self, text: str) -> None:
        """Say something."""
        self._said.append(text)

    @workflow.signal
    def end(self) -> None:
        """Say nothing more."""
        self._is_over = True


async def main() -> None:
    """Talk for longer than a run lasts."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Conversation]),
    ):
        handle = await client.start_workflow(
            Conversation.run, ["hello"], id="conversation-1", task_queue=TASK_QUEUE
        )
        # The handle follows the runs: each signal goes to the newest.
        for number in range(7):
            await handle.signal(Conversation.say, f"turn {number}")
        await handle.signal(Conversation.end)
        turns = await handle.result()
        runs = [run async for run in client.list_workflows()]

    assert turns == ["hello", *(f"turn {number}" for number in range(7))]
    assert len(runs) > 1
    assert {run.first_execution_run_id for run in runs} == {handle.run_id}
    print(f"{len(turns)} turns in {len(runs)} runs")


if __name__ == "__main__":
    asyncio.run(main())
