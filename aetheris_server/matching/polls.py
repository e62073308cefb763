"""What waits for tasks: polls, the record of who polled, and words for running workers.

All of it is memory of one host, bounded, and worth no more than a delay if it is lost.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from aetheris.api.v1.task_queue_pb2 import PollerInfo
from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris_server.build_ids import split_build
from aetheris_server.matching.match import Capabilities, WaitingPoll
from aetheris_server.matching.offers import QueuedTask

POLLER_MEMORY = 300.0
"""Seconds for which a worker that polled is shown."""

_MAX_POLLERS_SHOWN = 1_000
_MAIL_TTL = 60.0
_MAX_MAILBOXES = 1_000
_MAX_MAILS = 1_000


class Poll(WaitingPoll[QueuedTask]):
    """One poll call that waits.

    Attributes:
        is_over: It is to be answered with what there is: its time is up, or the server drains.
        is_abandoned: Its caller has gone; what it started must be released, and it tells nothing.
        number: Its place among its worker's polls for the queue; 0 where they are not counted.
    """

    __slots__ = (
        "_waiter",
        "identity",
        "is_abandoned",
        "is_over",
        "number",
        "worker_instance_id",
        "worker_version",
    )

    def __init__(
        self,
        capabilities: Capabilities,
        sticky_queue: str,
        max_tasks: int,
        identity: str,
        worker_instance_id: str,
        worker_version: str,
        number: int = 0,
    ) -> None:
        super().__init__(capabilities, sticky_queue, max_tasks)
        self.number = number
        self.identity = identity
        self.worker_instance_id = worker_instance_id
        self.worker_version = worker_version
        self.is_over = False
        self.is_abandoned = False
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait until it is woken. The caller has set a timer that ends it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """There is something to look at."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Answer it with what there is."""
        self.is_over = True
        self.wake()


_WorkerKey = tuple[str, Capabilities, str]
"""Its identity, what it can do, the build that it runs."""


@dataclass(slots=True)
class _Worker:
    last_access_time: float
    waiting_poll_count: int = 0


class PollerLog:
    """Who polled a queue in the last five minutes, and how many polls each has waiting."""

    def __init__(self) -> None:
        # Least recently seen first.
        self._workers: OrderedDict[_WorkerKey, _Worker] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether nobody polled."""
        return not self._workers

    def begin(self, poll: Poll, wall_now: float) -> None:
        """A poll came."""
        key = (poll.identity, poll.capabilities, poll.worker_version)
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker(wall_now)
            if len(self._workers) > _MAX_POLLERS_SHOWN:
                self._workers.popitem(last=False)
        else:
            worker.last_access_time = wall_now
            self._workers.move_to_end(key)
        worker.waiting_poll_count += 1

    def end(self, poll: Poll, wall_now: float) -> None:
        """A poll was answered or given up."""
        worker = self._workers.get((poll.identity, poll.capabilities, poll.worker_version))
        if worker is not None:
            worker.last_access_time = wall_now
            worker.waiting_poll_count = max(0, worker.waiting_poll_count - 1)

    def forget_old(self, wall_now: float) -> None:
        """Drop workers that have not polled for five minutes."""
        old = [
            key
            for key, worker in self._workers.items()
            if not worker.waiting_poll_count and wall_now - worker.last_access_time > POLLER_MEMORY
        ]
        for key in old:
            del self._workers[key]

    def infos(self) -> Iterator[PollerInfo]:
        """The workers, the one that polled last first."""
        by_time = sorted(self._workers.items(), key=lambda item: -item[1].last_access_time)
        for (identity, capabilities, worker_version), worker in by_time:
            info = PollerInfo(
                identity=identity,
                capabilities=split_build(capabilities)[0],
                waiting_poll_count=worker.waiting_poll_count,
                worker_version=worker_version,
            )
            info.last_access_time.FromNanoseconds(int(worker.last_access_time * 1e9))
            yield info


class Mailboxes:
    """Requests to cancel, by worker process, until its next poll or for a minute."""

    def __init__(self) -> None:
        # Least recently opened first.
        self._boxes: OrderedDict[str, deque[tuple[float, ActivityCancellation]]] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._boxes

    def put(self, worker_instance_id: str, mail: ActivityCancellation, now: float) -> None:
        """Keep a request; if there are too many, the oldest is lost."""
        box = self._boxes.get(worker_instance_id)
        if box is None:
            box = deque[tuple[float, ActivityCancellation]](maxlen=_MAX_MAILS)
            self._boxes[worker_instance_id] = box
            if len(self._boxes) > _MAX_MAILBOXES:
                self._boxes.popitem(last=False)
        if mail not in [other for _, other in box]:
            box.append((now + _MAIL_TTL, mail))

    def has_mail(self, worker_instance_id: str) -> bool:
        """Whether something is kept for a worker."""
        return worker_instance_id in self._boxes

    def take(self, worker_instance_id: str, now: float) -> list[ActivityCancellation]:
        """Hand over what is kept for a worker."""
        box = self._boxes.pop(worker_instance_id, ())
        return [mail for expire_at, mail in box if expire_at > now]

    def forget_old(self, now: float) -> None:
        """Drop boxes whose newest request has expired."""
        for name in [name for name, box in self._boxes.items() if box[-1][0] <= now]:
            del self._boxes[name]
