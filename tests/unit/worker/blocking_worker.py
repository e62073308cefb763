"""A worker whose activity never ends: `python -m tests.unit.worker.blocking_worker ADDRESS`."""

import asyncio
import logging
import sys
import threading
from datetime import timedelta

from aetheris_worker import Worker, activity, run_until_signal


@activity.defn
def blocks() -> None:
    """Hang, as a call without a timeout would."""
    sys.stdout.write("blocking\n")
    sys.stdout.flush()
    threading.Event().wait()


async def main() -> None:
    """Work until a signal comes."""
    await run_until_signal(
        Worker(
            sys.argv[1],
            task_queue="queue",
            activities=[blocks],
            graceful_shutdown_timeout=timedelta(seconds=0.2),
        )
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
