"""Runs a worker as a program of its own would."""

import asyncio
import signal
from collections.abc import Sequence

from aetheris_worker.worker import Worker


async def run_until_signal(
    *workers: Worker, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
) -> None:
    """Run workers until one of the signals comes, then shut them down in an orderly way.

    A second signal does what it would do without this function: it ends the process at once.

    Raises:
        RpcError: See `Worker.run`; the other workers are shut down then too.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def handle() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, handle)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        for task in running:
            await task
    finally:
        stopping.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(stopping, *running, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)
