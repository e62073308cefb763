"""What becomes of offered tasks: a poll, or the backlog, or word that they are lost.

`add_tasks` returns when each task is started by a poller's worker, known to be gone, or in the
backlog; until then its caller answers for it. So a killed matching host loses nothing, and neither
does a lost Redis: history offers again. A task finds a waiting poll also while Redis is down.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.errors import StorageUnavailableError, UnavailableError
from aetheris_server.matching.offers import Offer, QueuedTask, QueueKey, queue_key
from aetheris_server.matching.pusher import Pusher
from aetheris_server.matching.queue import TaskQueue


class Offering:
    """Follows the offers of one host.

    Args:
        open_queue: A queue, made where there is none yet; raises UnavailableError.
        linger: Seconds that a task waits for a poll that is expected, before it is pushed.
    """

    def __init__(
        self,
        open_queue: Callable[[QueueKey], TaskQueue],
        pusher: Pusher,
        clock: Clock,
        linger: float,
    ) -> None:
        self._open_queue = open_queue
        self._pusher = pusher
        self._clock = clock
        self._linger = linger
        self._is_draining = False

    def begin_drain(self) -> None:
        """Expect no polls any more: what is offered from now on goes to the backlog."""
        self._is_draining = True

    async def add_tasks(self, tasks: Sequence[TaskRef]) -> None:
        """Offer tasks; returns when each is started, gone, or in the backlog. A query only has to
        be in memory. Offering twice does no harm.

        Raises:
            UnavailableError: Some may not be safe; offer all again.
        """
        wall_now, now = self._clock.now().timestamp(), self._clock.monotonic()
        offer = Offer()
        try:
            for ref in tasks:
                queue = self._open_queue(queue_key(ref))
                if ref.query_id:
                    if queue.is_full:
                        raise UnavailableError(
                            f"task queue {ref.task_queue!r} has too many queries"
                        )
                    queue.offer(QueuedTask(ref, None, None, wall_now, now))
                else:
                    offer.add()
                    queue.offer(QueuedTask(ref, offer, None, wall_now, now))
            while not offer.is_settled:
                await self._advance(offer)
        finally:
            offer.is_abandoned = True
            for task in list(offer.waiting):
                self._open_queue(queue_key(task.ref)).withdraw(task)

    async def _advance(self, offer: Offer) -> None:
        """Wait for something to happen to an offer, and push what no poller came for."""
        waiting = list(offer.waiting)
        if not waiting:
            await offer.wait()
            return
        to_push = [task for task in waiting if not self._is_poller_expected(task)]
        if not to_push:
            await offer.wait(self._linger)
            to_push = [task for task in waiting if task in offer.waiting]
        if to_push:
            await self._push(offer, to_push)

    def _is_poller_expected(self, task: QueuedTask) -> bool:
        if self._is_draining:
            return False
        return self._open_queue(queue_key(task.ref)).is_poller_expected(task)

    async def _push(self, offer: Offer, tasks: Sequence[QueuedTask]) -> None:
        by_queue: defaultdict[QueueKey, list[QueuedTask]] = defaultdict(list)
        for task in tasks:
            key = queue_key(task.ref)
            self._open_queue(key).withdraw(task)
            by_queue[key].append(task)
        try:
            pushed = await self._pusher.push(by_queue)
        except StorageUnavailableError as error:
            for task in tasks:
                offer.lose(task, error)
            return
        for task in tasks:
            offer.settle(task)
        for key, of_queue in pushed.items():
            queue = self._open_queue(key)
            queue.counts.pushes += len(by_queue[key])
            queue.counts.repairs += of_queue.repair_count
            queue.learn(of_queue.counts)
