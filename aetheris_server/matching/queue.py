"""One side of a task queue on this host: polls and tasks meet here.

Invariant: a task that was given to this queue is held by the matcher, with a poll, about to be
offered again, leased from the backlog, or settled with whoever answers for it; a poll that goes
away at any moment gives back what it has. Starting tasks, and bringing tasks to the backlog, is
left to others.
"""

import asyncio
from collections.abc import Iterable, Sequence

from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris_server.build_ids import build_capability
from aetheris_server.clock import Clock
from aetheris_server.errors import ExhaustedError
from aetheris_server.matching import metrics
from aetheris_server.matching.answered import Answered
from aetheris_server.matching.backlog import Backlog, Counts, Inspection
from aetheris_server.matching.backlog_view import BacklogView
from aetheris_server.matching.lease_ender import Fate, LeaseEnder
from aetheris_server.matching.match import NO_CAPABILITIES, Capabilities, Matcher, SubQueue
from aetheris_server.matching.offers import QueuedTask, QueueKey
from aetheris_server.matching.polls import Mailboxes, Poll, PollerLog

MAX_POLLS = 10_000
MAX_HELD_TASKS = 10_000
_FIRST_RETRY_DELAY = 0.05
_MAX_RETRIES = 5


class TaskQueue:
    """Polls, held tasks, and what is known of the backlog.

    Attributes:
        key: Which queue it is.
        default_build_id: The build that tasks go to which require none; empty for any.
        backlog: What this host knows of the queue's backlog.
        counts: Where what happens here is counted.
        polls: Those that are being served; keys only.
        pollers: Who polled lately.
        answered: What the workers that count their polls may not have got.
        mailboxes: Requests to cancel that wait for a poll of their worker.
    """

    def __init__(
        self,
        key: QueueKey,
        backlog: Backlog,
        lease_ender: LeaseEnder,
        clock: Clock,
        group: asyncio.TaskGroup,
        default_build_id: str = "",
    ) -> None:
        """Args:
        key: Which queue it is.
        backlog: Where tasks wait that find no poll.
        lease_ender: Where leases on those end.
        clock: Of this host.
        group: For what outlives a poll.
        default_build_id: The build that tasks go to which require none; empty for any.
        """
        self.key = key
        self.default_build_id = default_build_id
        self.counts = metrics.counts(key.task_queue_type)
        self.backlog = BacklogView(key, backlog, lease_ender, group)
        self._lease_ender = lease_ender
        self._clock = clock
        self._matcher: Matcher[QueuedTask, Poll] = Matcher(_required(default_build_id))
        self.polls: dict[Poll, None] = {}
        self._counted: dict[str, Poll] = {}
        self.pollers = PollerLog()
        self.answered = Answered()
        self.mailboxes = Mailboxes()

    @property
    def held_count(self) -> int:
        """Tasks held in memory."""
        return self._matcher.held_count

    def held(self) -> Iterable[QueuedTask]:
        """The tasks held in memory, in no order."""
        return self._matcher.held()

    @property
    def is_full(self) -> bool:
        """Whether no more tasks should be held."""
        return self.held_count >= MAX_HELD_TASKS

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if it is forgotten."""
        return self.pollers.is_empty and not self.held_count and self.mailboxes.is_empty

    @property
    def needs_inspection(self) -> bool:
        """Whether the backlog must be looked at now and then."""
        return bool(self.polls) or self.backlog.is_pending

    def offer(self, task: QueuedTask) -> None:
        """Give a task to a poll, or hold it. One of the same key that is held gives way to it."""
        if task.offer is not None and task.offer.is_abandoned:
            return
        older = self._matcher.find(task.key)
        if older is not None:
            self._matcher.withdraw(older)
            if older.offer is not None:
                older.offer.settle(older)
        poll = self._matcher.offer(task, self._clock.monotonic())
        if poll is not None:
            poll.wake()
        elif task.offer is not None:
            task.offer.hold(task)

    def withdraw(self, task: QueuedTask) -> None:
        """Take a held task back; whoever answers for it still does."""
        self._matcher.withdraw(task)
        if task.offer is not None:
            task.offer.release(task)

    def is_poller_expected(self, task: QueuedTask) -> bool:
        """Whether it is worth waiting a moment for a poller, because one was there a moment ago and
        no older task waits for it.
        """
        if self.is_full or task.place is None:
            return False
        if task.place[0] in self.backlog:
            return False
        return self._matcher.is_poller_expected(task, self._clock.monotonic())

    def begin(self, poll: Poll) -> None:
        """A poll came; it ends an earlier one of a worker that counts them. Every `begin` is
        followed by an `end`.

        Raises:
            ExhaustedError: There are too many.
        """
        if len(self.polls) >= MAX_POLLS:
            raise ExhaustedError(
                f"task queue {self.key.task_queue!r}: {MAX_POLLS} polls wait already; poll less"
                " often and for more tasks at once (max_tasks)"
            )
        self.polls[poll] = None
        self.pollers.begin(poll, self._clock.now().timestamp())
        if poll.number:
            self._follow(poll)

    def end(self, poll: Poll) -> None:
        """A poll is answered or given up; it holds no tasks."""
        del self.polls[poll]
        if self._counted.get(poll.worker_instance_id) is poll:
            del self._counted[poll.worker_instance_id]
        self.pollers.end(poll, self._clock.now().timestamp())

    def dismiss(self, worker_instance_id: str, sticky_queue: str) -> None:
        """A worker does not come back: end its polls, and open to all what was kept for it."""
        for poll in self.polls:
            if poll.worker_instance_id == worker_instance_id:
                self._abandon(poll)
        if not sticky_queue:
            return
        self._matcher.forget_sticky(sticky_queue)
        self._open_what_is_due()
        self.learn({sub_queue: 1 for sub_queue in self.backlog if sub_queue.sticky_queue})

    async def take_tasks(self, poll: Poll) -> list[QueuedTask]:
        """Wait for tasks for a poll: at least one, at most its `max_tasks`, oldest first; none when
        the poll is over or there is mail for its worker.

        Each of them is to be settled by `finish`, `retry` or `put_back`.
        """
        while not poll.is_over:
            now = self._clock.monotonic()
            if tasks := self._matcher.claim(poll, now):
                _release(tasks)
                return tasks
            if self.mailboxes.has_mail(poll.worker_instance_id):
                return []
            if sub_queues := [s for s in self.backlog if self._matcher.may_have(poll, s, now)]:
                if tasks := await self._pop(poll, sub_queues):
                    return tasks
                continue
            self._matcher.line_up(poll, now)
            try:
                await poll.wait()
            except asyncio.CancelledError:
                for task in self._matcher.leave(poll, self._clock.monotonic()):
                    self.put_back(task)
                raise
            if tasks := self._matcher.leave(poll, self._clock.monotonic()):
                return tasks
        return []

    def finish(self, task: QueuedTask) -> None:
        """A task is started, or gone."""
        if task.lease:
            self._lease_ender.end_lease(self.key, task.lease, Fate.DONE)
        elif task.offer is not None:
            task.offer.settle(task)

    def put_back(self, task: QueuedTask) -> None:
        """A task's poll disappeared before the task was started."""
        if task.lease:
            self._lease_ender.end_lease(self.key, task.lease, Fate.RETURNED)
        else:
            self.offer(task)

    def retry(self, task: QueuedTask) -> None:
        """History could not start a task now: offer it again in a moment, and not for ever."""
        if task.lease:
            self._lease_ender.end_lease(self.key, task.lease, Fate.POSTPONED)
            return
        if task.retry_count >= _MAX_RETRIES:
            task.fail()
            return
        delay = _FIRST_RETRY_DELAY * 2**task.retry_count
        task.retry_count += 1
        asyncio.get_running_loop().call_later(delay, self.put_back, task)

    def learn(self, counts: Counts) -> None:
        """Something is known of the backlog: have those polls look that it is for."""
        self.backlog.learn(counts)
        now = self._clock.monotonic()
        for sub_queue, count in counts.items():
            left = count
            for poll in self._matcher.in_line():
                if left <= 0:
                    break
                if self._matcher.may_have(poll, sub_queue, now):
                    poll.wake()
                    left -= poll.max_tasks

    def learn_all(self, inspection: Inspection) -> bool:
        """The whole backlog is known; whether Redis has lost a part of it."""
        is_part_lost = self.backlog.replace(inspection)
        self.counts.redeliveries += inspection.returned_count
        self.learn(inspection.counts)
        return is_part_lost

    def change_default_build(self, build_id: str) -> None:
        """Tasks that require no build go to this one from here on, empty for any, those that wait
        too.
        """
        self.default_build_id = build_id
        default = _required(build_id)
        for poll in self._matcher.change_default(default, self._clock.monotonic()):
            _release(poll.tasks)
            poll.wake()
        for poll in self._matcher.in_line():
            # There may be something for it in the backlog that was not before.
            poll.wake()

    def look_after(self) -> None:
        """Let time pass: what expired is dropped, what its sticky worker did not take is open to
        all. To be called about every second.
        """
        self._open_what_is_due()
        now = self._clock.monotonic()
        self.pollers.forget_old(self._clock.now().timestamp())
        self.mailboxes.forget_old(now)
        self.answered.forget_old(now)

    def post(self, worker_instance_id: str, mail: ActivityCancellation) -> None:
        """Have a worker told, by a poll that waits or by its next one."""
        self.mailboxes.put(worker_instance_id, mail, self._clock.monotonic())
        for poll in self.polls:
            if poll.worker_instance_id == worker_instance_id and not poll.is_abandoned:
                poll.wake()
                return

    def _open_what_is_due(self) -> None:
        for poll in self._matcher.expire(self._clock.monotonic()):
            _release(poll.tasks)
            poll.wake()

    def _follow(self, poll: Poll) -> None:
        former = self._counted.get(poll.worker_instance_id)
        is_later = former is not None and former.number > poll.number
        if is_later or self.answered.is_outdated(poll):
            # It was long on its way; its worker does not wait for it any more.
            self._abandon(poll)
            return
        self._counted[poll.worker_instance_id] = poll
        if former is not None:
            self._abandon(former)

    def _abandon(self, poll: Poll) -> None:
        """End a poll that nobody waits for; it may be starting tasks just now."""
        poll.is_abandoned = True
        tasks = self._matcher.leave(poll, self._clock.monotonic())
        # No sign of its worker any more.
        poll.sticky_queue = ""
        poll.end()
        for task in tasks:
            self.put_back(task)

    async def _pop(self, poll: Poll, sub_queues: Sequence[SubQueue]) -> list[QueuedTask]:
        popped = await self.backlog.pop(sub_queues, poll.max_tasks)
        self.counts.pops += len(popped.leased)
        self.learn(popped.counts)
        wall_now, now = self._clock.now().timestamp(), self._clock.monotonic()
        return [QueuedTask(ref, None, lease, wall_now, now) for lease, ref in popped.leased]


def _required(build_id: str) -> Capabilities:
    return frozenset((build_capability(build_id),)) if build_id else NO_CAPABILITIES


def _release(tasks: Sequence[QueuedTask]) -> None:
    for task in tasks:
        if task.offer is not None:
            task.offer.release(task)
