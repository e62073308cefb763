"""Describe: what a run waits for, since when, and what is open of it."""

import asyncio
from datetime import timedelta

from aetheris_client import Client
from aetheris_client.enums import WaitKind
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-describe"


@workflow.defn
class Remind:
    """Wait until it is time, or somebody is in a hurry."""

    def __init__(self) -> None:
        self._is_hurried = False

    @workflow.run
    async def run(self) -> str:
        """Wait."""
        try:
            await workflow.wait_condition(lambda: self._is_hurried, timeout=timedelta(hours=1))
        except TimeoutError:
            return "it is time"
        return "hurried"

    @workflow.signal
    def hurry(self) -> None:
        """Go on now."""
        self._is_hurried = True


async def main() -> None:
    """Look at a run before a worker is there, while it waits, and while it is paused."""
    async with await Client.connect() as client:
        run = await client.start_workflow(Remind.run, id="remind-1", task_queue=TASK_QUEUE)
        (reason,) = (await run.describe()).wait_reasons
        assert reason.kind is WaitKind.WORKFLOW_TASK_NOT_TAKEN
        print(f"no worker at {reason.task_queue} since {reason.since_time}")

        async with Worker(client, task_queue=TASK_QUEUE, workflows=[Remind]):
            while reason.kind is not WaitKind.TIMER:
                await asyncio.sleep(0.05)
                (reason,) = (await run.describe()).wait_reasons
            print(f"waits for timer {reason.subject} until {reason.until_time}")

            await run.pause(reason="look")
            kinds = {each.kind for each in (await run.describe()).wait_reasons}
            assert kinds == {WaitKind.PAUSED, WaitKind.TIMER}

            await run.unpause()
            await run.signal(Remind.hurry)
            assert await run.result() == "hurried"
            assert not (await run.describe()).wait_reasons


if __name__ == "__main__":
    asyncio.run(main())
