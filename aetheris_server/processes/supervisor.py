"""All of the processes: started together, told to end together, and what they say as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from aetheris_server.config import Settings
from aetheris_server.loops import end_tasks, run_to_end
from aetheris_server.processes.child import Child
from aetheris_server.processes.errors import CutOffError
from aetheris_server.processes.metrics import READY, merge_metrics, show_metrics_of_supervisor
from aetheris_server.telemetry import get_logger

# Of the seconds that the end may take: what a process has for its own, after which it says what
# hangs; and when those that are left are killed. The rest is for what the supervisor ends.
_SHARE_OF_PROCESS = 0.7
_SHARE_OF_ALL = 0.8
_KILL_TIMEOUT = 5.0

_log = get_logger(__name__)


class Supervisor:
    """The processes of one server. `supervise` makes it.

    Attributes:
        children: Them, in the order of their numbers.
    """

    def __init__(self, settings: Sequence[Settings], shard_count: int, end_timeout: float) -> None:
        """Args:
        settings: Of each process; one at least.
        shard_count: Of the cluster.
        end_timeout: Seconds for all that is to be done when the calls in flight have had theirs.
        """
        drain_timeout = settings[0].grpc.drain_timeout
        own_timeout = drain_timeout + _SHARE_OF_PROCESS * end_timeout
        self._kill_timeout = drain_timeout + _SHARE_OF_ALL * end_timeout
        self.children = [
            Child(number, each, shard_count, own_timeout)
            for number, each in enumerate(settings, start=1)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._is_draining = False

    # What HTTP asks.

    @property
    def waits_for(self) -> str | None:
        """What keeps this server from serving; None if at least one process can."""
        if self._is_draining:
            return "draining"
        if any(child.waits_for is None for child in self.children):
            return None
        return "one of its processes"

    def describe(self) -> str:
        """How many processes can serve, and what each of the others waits for; a line each."""
        ready = sum(child.waits_for is None for child in self.children)
        waiting = [
            f"process {child.number} is waiting for {child.waits_for}\n"
            for child in self.children
            if child.waits_for is not None
        ]
        return "".join([f"{ready} of {len(self.children)} processes are ready\n", *waiting])

    async def show_metrics(self) -> bytes:
        """The metrics of all processes but those that do not tell theirs within a second."""
        for child in self.children:
            READY.labels(str(child.number)).set(child.waits_for is None)
        texts = await asyncio.gather(*(child.ask_metrics() for child in self.children))
        told = [text for text in texts if text is not None]
        return merge_metrics([show_metrics_of_supervisor(), *told]).encode()

    # Coming and going.

    async def start(self) -> None:
        """Start the processes; returns when each has begun to serve.

        Raises:
            StartFailedError: One cannot; the others go on until `drain`.
        """
        self._tasks = [
            asyncio.create_task(child.run(), name=f"process-{child.number}")
            for child in self.children
        ]
        serving = asyncio.create_task(self._wait_served(), name="serving")
        try:
            await asyncio.wait([serving, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks([serving])
        self._raise_failed()

    async def watch(self) -> None:
        """Wait for a fault of the supervisor's own, until cancelled, and raise it."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._raise_failed()

    async def drain(self) -> None:
        """Have all processes end; returns when none is left.

        Raises:
            CutOffError: Some had to be killed, or did not end well.
        """
        self._is_draining = True
        for child in self.children:
            child.drain()
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=self._kill_timeout)
            if pending:
                for child in self.children:
                    child.kill()
                await asyncio.wait(pending, timeout=_KILL_TIMEOUT)
            await end_tasks(self._tasks)
        if cut_off := [child.number for child in self.children if child.is_cut_off]:
            raise CutOffError(cut_off)

    async def _wait_served(self) -> None:
        for child in self.children:
            await child.has_served.wait()

    def _raise_failed(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()


@asynccontextmanager
async def supervise(supervisor: Supervisor) -> AsyncGenerator[None]:
    """Have the processes serve from when the block is entered until it is left.

    Raises:
        StartFailedError: One cannot.
        CutOffError: Some did not end well when the block was left.
    """
    try:
        await supervisor.start()
        yield
    except BaseException:
        with suppress(CutOffError):
            await run_to_end(supervisor.drain())
        raise
    _log.info("draining")
    await run_to_end(supervisor.drain())
