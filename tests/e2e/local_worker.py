"""A worker that kills itself at one point of a chain of local activities, once.

    python -m tests.e2e.local_worker ADDRESS QUEUE EFFECTS POINT STEP

EFFECTS is a file, which gets a line for each effect. POINT is `before` or `after` the effect of
that step, or `never`.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from aetheris_client import Client
from aetheris_worker import Worker, activity, workflow

STEPS = 4


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@activity.defn
def note(step: int) -> int:
    """Have an effect."""
    effects, point, fatal = Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    if point == "before" and step == fatal:
        _die()
    with effects.open("a") as file:
        file.write(f"{step}\n")
        file.flush()
        os.fsync(file.fileno())
    if point == "after" and step == fatal:
        _die()
    return step


@workflow.defn
class Notes:
    """One after the other."""

    @workflow.run
    async def run(self) -> list[int]:
        """Give all that came of them."""
        return [
            await workflow.execute_local_activity(
                note, step, start_to_close_timeout=timedelta(seconds=30)
            )
            for step in range(STEPS)
        ]


async def main() -> None:
    """Work until killed."""
    client = await Client.connect(sys.argv[1])
    worker = Worker(client, task_queue=sys.argv[2], workflows=[Notes], activities=[note])
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
