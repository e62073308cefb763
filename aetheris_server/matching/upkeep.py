"""What matching does about once a second, polls or not.

Lets time pass in each queue, drops idle queues, looks at the backlog of those that need it in one
round trip, and finds out whether Redis has lost tasks. While Redis does not answer, everything
goes on that does not need it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

from aetheris_server.errors import StorageUnavailableError, UnavailableError
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.matching import metrics
from aetheris_server.matching.backlog import Backlog
from aetheris_server.matching.offers import QueueKey
from aetheris_server.matching.queue import TaskQueue
from aetheris_server.telemetry import get_logger

_INTERVAL = 1.0
_MAX_PER_ROUND_TRIP = 200
# A Redis that keeps removing keys must not have everything offered again all the time.
_RENEW_INTERVAL = 30.0
_SETUP_INTERVAL = 60.0

_log = get_logger(__name__)


class Upkeep:
    """Looks after the queues of one host. Both `run_` methods belong to one asyncio task each."""

    def __init__(
        self,
        queues: dict[QueueKey, TaskQueue],
        backlog: Backlog,
        on_backlog_lost: Callable[[], Awaitable[None]],
    ) -> None:
        """Args:
        queues: The service's own; idle ones are deleted from it.
        on_backlog_lost: Called when Redis may have lost tasks, and again until it succeeds.
        """
        self._queues = queues
        self._backlog = backlog
        self._on_backlog_lost = on_backlog_lost
        self._is_urgent = asyncio.Event()
        self._is_lost = asyncio.Event()
        self._does_redis_answer = True
        self._has_checked = False
        self._is_part_lost = False
        self._next_renewal = 0.0
        self._next_setup_check = 0.0
        self._setup_problem = ""
        backlog.epoch.on_suspicion = self._is_urgent.set

    def hurry(self) -> None:
        """There is a queue whose backlog is not known: do not wait for the next round."""
        if self._does_redis_answer:
            self._is_urgent.set()

    async def run_rounds(self) -> None:
        """Make round after round until cancelled."""
        while not is_cancelled():
            try:
                await self._make_round()
            except Exception:  # noqa: BLE001 - the next round may do; ending the polls helps nobody
                _log.exception("matching's upkeep failed")
            # Spread, so that hosts that started together do not ask together.
            await pause(_INTERVAL * random.uniform(0.8, 1.2), unless=self._is_urgent)

    async def run_reports(self) -> None:
        """Report losses until cancelled."""
        while not is_cancelled():
            await self._is_lost.wait()
            self._is_lost.clear()
            if not await self._try_report():
                await pause(_INTERVAL)
                self._is_lost.set()

    async def _make_round(self) -> None:
        self._is_urgent.clear()
        for queue in list(self._queues.values()):
            queue.look_after()
            if queue.is_idle:
                del self._queues[queue.key]
        self._publish()
        try:
            if await self._backlog.epoch.check():
                for queue in self._queues.values():
                    queue.backlog.forget()
                if self._has_checked:
                    _log.warning("redis may have lost tasks; they are dispatched again")
                else:
                    _log.info("redis holds no backlog yet; what is owed is dispatched")
                metrics.backlog_losses.inc()
                self._is_lost.set()
            self._has_checked = True
            await self._inspect()
            await self._renew_epoch()
            await self._check_setup()
        except StorageUnavailableError as error:
            if self._does_redis_answer:
                _log.warning(
                    "redis does not answer; until it does, only tasks that meet a poll start",
                    error=str(error),
                )
            self._does_redis_answer = False
        else:
            self._does_redis_answer = True

    async def _inspect(self) -> None:
        gaps: list[str] = []
        for keys in self._to_inspect():
            for key in keys:
                self._queues[key].backlog.begin_inspection()
            for key, inspection in (await self._backlog.inspect(keys)).items():
                queue = self._queues.get(key)
                if queue is not None and queue.learn_all(inspection):
                    gaps.append(key.task_queue)
        if not gaps:
            return
        metrics.backlog_gaps.inc(len(gaps))
        _log.warning("redis has lost tasks of some queues", task_queues=gaps[:10])
        self._is_part_lost = True

    async def _renew_epoch(self) -> None:
        """Have all hosts offer again what is owed; which of it is lost is not known."""
        now = asyncio.get_running_loop().time()
        if self._is_part_lost and now >= self._next_renewal:
            await self._backlog.epoch.renew()
            self._is_part_lost = False
            self._next_renewal = now + _RENEW_INTERVAL

    async def _check_setup(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_setup_check:
            return
        self._next_setup_check = now + _SETUP_INTERVAL
        problem = await self._backlog.check_setup()
        if problem and problem != self._setup_problem:
            _log.warning(problem)
        self._setup_problem = problem

    def _publish(self) -> None:
        queues = self._queues.values()
        metrics.queues.set(len(queues))
        metrics.polls.set(sum(len(queue.polls) for queue in queues))
        metrics.held_tasks.set(sum(queue.held_count for queue in queues))
        metrics.publish()

    def _to_inspect(self) -> Iterator[list[QueueKey]]:
        keys = [queue.key for queue in self._queues.values() if queue.needs_inspection]
        for start in range(0, len(keys), _MAX_PER_ROUND_TRIP):
            yield keys[start : start + _MAX_PER_ROUND_TRIP]

    async def _try_report(self) -> bool:
        try:
            await self._on_backlog_lost()
        except UnavailableError as error:
            _log.warning("lost tasks are not dispatched yet", error=str(error))
            return False
        except Exception:  # noqa: BLE001 - tried again; ending the polls would help nobody
            _log.exception("lost tasks are not dispatched yet")
            return False
        return True
