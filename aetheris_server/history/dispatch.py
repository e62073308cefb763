"""From history to matching: tasks that are owed are offered until matching has them.

Nothing here is durable. What is lost with the process is derived again from the state.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import UnavailableError
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_OFFERED = counter("dispatch_offered", "Tasks offered to matching.")
_FAILED = counter("dispatch_failed", "Offers that matching could not take; they are repeated.")
_WAITING = gauge("dispatch_queue_length", "Tasks that wait to be offered.")

_MAX_BATCH = 500
_MAX_CONCURRENT_BATCHES = 16
_OFFER_TIMEOUT = 10.0
_RETRY_INITIAL_INTERVAL = 0.1
_RETRY_MAXIMUM_INTERVAL = 5.0


class Dispatcher:
    """Offers tasks to matching, several batches at a time, and again after a failure."""

    def __init__(self, matching: MatchingPeer) -> None:
        self._matching = matching
        self._queue: deque[matching_service_pb2.TaskRef] = deque()
        self._wake = asyncio.Event()

    def offer(self, refs: Iterable[matching_service_pb2.TaskRef]) -> None:
        """Offer tasks soon."""
        self._queue.extend(refs)
        if self._queue:
            self._wake.set()

    async def run(self) -> None:
        """Offer until cancelled."""
        slots = asyncio.Semaphore(_MAX_CONCURRENT_BATCHES)
        async with asyncio.TaskGroup() as offers:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await slots.acquire()
                    batch = [
                        self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))
                    ]
                    _WAITING.set(len(self._queue))
                    offers.create_task(self._offer(batch)).add_done_callback(
                        lambda _: slots.release()
                    )

    async def _offer(self, batch: list[matching_service_pb2.TaskRef]) -> None:
        interval = _RETRY_INITIAL_INTERVAL
        while True:
            try:
                async with asyncio.timeout(_OFFER_TIMEOUT):
                    await self._matching.add_tasks(batch)
                _OFFERED.inc(len(batch))
                return
            except (UnavailableError, TimeoutError) as error:
                _FAILED.inc(len(batch))
                _log.warning("matching did not take tasks", count=len(batch), error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                # Matching's fault, maybe on another host, must not end this one.
                _FAILED.inc(len(batch))
                _log.exception("matching did not take tasks", count=len(batch))
            await asyncio.sleep(interval)
            interval = min(interval * 2, _RETRY_MAXIMUM_INTERVAL)
