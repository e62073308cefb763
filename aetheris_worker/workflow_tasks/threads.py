"""Runs workflow code in a thread of its own, beside the worker's event loop.

One such thread serves the queue: code that keeps the rules only computes, so that a second one
would win nothing. Code that blocks holds up nobody for long:

    after RELIEF   the thread leaves: it does not go back to the queue, which another one serves
    after LIMIT    without progress: the step is given up. Its task fails as a deadlock, naming
                   the place; its thread is made to raise as soon as it is seen in code that is
                   neither Python's nor the worker's: there it might hold a lock of all threads
    at its end     a thread that leaves cleans up after what was given up, and ends

Nothing is given up while a debugger holds it. A thread that hangs in C code (a socket, a lock)
cannot be stopped. MAX_THREADS bounds them; when so many hang, workflow code stands still until one
of them has ended.
"""

import asyncio
import ctypes
import logging
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar, cast

from aetheris_worker.runtime.call_site import is_in_debugger, is_of_user, is_of_worker
from aetheris_worker.runtime.errors import DeadlockError, RunEvictedError

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("aetheris.worker")

NAME: Final = "aetheris-workflow"
LIMIT: Final = 2.0
RELIEF: Final = 0.1
MAX_THREADS: Final = 16
_CHECK_INTERVAL: Final = 0.05
_RAISE_INTERVAL: Final = 1.0
# At the end of the worker: so often, and that far apart.
_LAST_RAISES: Final = 5
_LAST_RAISE_INTERVAL: Final = 0.2

Deliver = Callable[[object, BaseException | None], None]


class _Job:
    __slots__ = (
        *("clean_up", "deliver", "is_given_up", "label", "progress", "raise_time", "seen_progress"),
        *("stalled", "work"),
    )

    def __init__(
        self,
        label: str,
        work: Callable[[], object],
        deliver: Deliver,
        clean_up: Callable[[], None],
        progress: Callable[[], int],
    ) -> None:
        self.label = label
        self.work = work
        self.deliver = deliver
        self.clean_up = clean_up
        self.progress = progress
        self.seen_progress = 0
        # Seconds for which it was seen at the same place.
        self.stalled = 0.0
        self.is_given_up = False
        self.raise_time = 0.0


class _Thread(threading.Thread):
    """Attributes:
    job: What it does now; None while it waits. Taken away under the lock.
    begin_time: When it began that.
    is_leaving: It ends after its job, and serves the queue no more.
    """

    def __init__(self, serve: "Callable[[_Thread], None]") -> None:
        super().__init__(name=NAME, daemon=True)
        self.job: _Job | None = None
        self.begin_time = 0.0
        self.is_leaving = False
        self.lock = threading.Lock()
        self._serve = serve

    def run(self) -> None:
        self._serve(self)


class WorkflowThreads:
    """See the module. All but the jobs' work and their `clean_up` is on the loop's thread."""

    def __init__(
        self,
        limit: float | None = None,
        relief: float | None = None,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self._limit = LIMIT if limit is None else limit
        self._relief = min(self._limit, RELIEF if relief is None else relief)
        self._max_threads = max_threads
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[_Thread] = []
        self._ended: deque[tuple[_Job, object, BaseException | None]] = deque()
        self._is_drain_due = False
        self._pending_count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_check_time = 0.0
        self._has_said_full = False

    @property
    def is_idle(self) -> bool:
        """Nothing is left to do; what was given up does not count."""
        return self._pending_count == 0

    async def wait_idle(self) -> None:
        """Return once it is idle."""
        await self._idle.wait()

    def submit(
        self,
        label: str,
        work: Callable[[], object],
        deliver: Deliver,
        clean_up: Callable[[], None],
        progress: Callable[[], int] = lambda: 0,
    ) -> None:
        """Have work done in the thread; `deliver` gets its result or error, exactly once.

        Args:
            label: Whose code it is, for people.
            work: What to do.
            deliver: Called on the loop's thread; with DeadlockError where the work was given up.
            clean_up: Called in the thread when work that was given up ends after all.
            progress: How far the work is: what takes long is no deadlock as long as that changes.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._provide_thread()
        if self._timer is None:
            self._last_check_time = time.monotonic()
            self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check)
        self._pending_count += 1
        self._idle.clear()
        self._queue.put(_Job(label, work, deliver, clean_up, progress))

    async def run(
        self,
        label: str,
        work: Callable[[], T],
        clean_up: Callable[[], None],
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """`submit`, and wait for it.

        Raises:
            DeadlockError: The work was given up.
            Exception: What it raised.
        """
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def deliver(result: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(label, work, deliver, clean_up, progress)
        return cast(T, await future)

    async def end_given_up(self) -> None:
        """Raise in what was given up a few times more, and say what hangs on after all.

        Only then does code that catches what is raised in it not spin on behind its worker.
        """
        for _ in range(_LAST_RAISES):
            hanging = self._given_up()
            if not hanging:
                return
            for thread, job in hanging:
                job.raise_time = 0.0
                self._give_up(thread, job)
            await asyncio.sleep(_LAST_RAISE_INTERVAL)
        labels = sorted(job.label for _, job in self._given_up())
        if labels:
            _LOGGER.error(
                "workflow code that was given up and cannot be ended runs on in %d threads until "
                "the process ends: %s",
                len(labels),
                ", ".join(labels),
            )

    def stop(self) -> None:
        """No more jobs come. Threads that wait end now, those that hang with the process."""
        if self._timer is not None:
            self._timer.cancel()
        for _ in self._threads:
            self._queue.put(None)

    # On the loop's thread.

    def _provide_thread(self) -> None:
        """See that one serves the queue, unless so many hang that there may be no other."""
        if any(not thread.is_leaving for thread in self._threads):
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) < self._max_threads:
            self._has_said_full = False
            thread = _Thread(self._serve)
            self._threads.append(thread)
            thread.start()
        elif not self._has_said_full:
            self._has_said_full = True
            labels = sorted(thread.job.label for thread in self._threads if thread.job is not None)
            _LOGGER.error(
                "all %d threads for workflow code hang, so no workflow of this worker goes on "
                "until one comes back: %s",
                len(self._threads),
                ", ".join(labels),
            )

    def _drain(self) -> None:
        self._is_drain_due = False
        while self._ended:
            job, result, error = self._ended.popleft()
            if not job.is_given_up:
                self._deliver(job, result, error)

    def _deliver(self, job: _Job, result: object, error: BaseException | None) -> None:
        try:
            job.deliver(result, error)
        except Exception:
            _LOGGER.exception("what came of a step of %s could not be delivered", job.label)
        self._pending_count -= 1
        if self._pending_count == 0:
            self._idle.set()

    def _check(self) -> None:
        """Look whether a thread hangs; again and again while there is something to do."""
        assert self._loop is not None
        self._timer = None
        now = time.monotonic()
        # No more than that: a process that was paused is not one whose code blocks.
        since_last = min(now - self._last_check_time, 4 * _CHECK_INTERVAL)
        self._last_check_time = now
        for thread in self._threads:
            job = thread.job
            # In this order: a job that began since the first line counts as new.
            elapsed = now - thread.begin_time
            if job is None:
                continue
            if elapsed >= self._relief:
                thread.is_leaving = True
            progress = job.progress()
            if progress != job.seen_progress:
                job.seen_progress, job.stalled = progress, 0.0
            else:
                job.stalled += min(since_last, elapsed)
            if job.stalled >= self._limit and not is_in_debugger(_frame_of(thread)):
                self._give_up(thread, job)
        self._provide_thread()
        if self._pending_count or any(thread.job is not None for thread in self._threads):
            self._timer = self._loop.call_later(_CHECK_INTERVAL, self._check)

    def _given_up(self) -> list[tuple[_Thread, _Job]]:
        jobs = [(thread, thread.job) for thread in self._threads]
        return [(thread, job) for thread, job in jobs if job is not None and job.is_given_up]

    def _give_up(self, thread: _Thread, job: _Job) -> None:
        with thread.lock:
            # The lock: nothing may be raised in the thread once it has ended the job.
            if thread.job is not job:
                return
            is_first = not job.is_given_up
            stack = _stack_of(thread) if is_first else ""
            job.is_given_up = True
            now = time.monotonic()
            if now >= job.raise_time and _is_in_user_code(thread):
                job.raise_time = now + _RAISE_INTERVAL
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident or 0), ctypes.py_object(RunEvictedError)
                )
        if is_first:
            self._deliver(job, None, DeadlockError(job.label, job.stalled, stack))

    # In the thread.

    def _serve(self, thread: _Thread) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            try:
                self._do(thread, job)
            except RunEvictedError:
                # Raised from outside, right behind the end of the work.
                thread.job = None
            if job.is_given_up:
                _clean_up(job)
            if thread.is_leaving:
                return

    def _do(self, thread: _Thread, job: _Job) -> None:
        thread.begin_time = time.monotonic()
        thread.job = job
        result: object = None
        error: BaseException | None = None
        try:
            result = job.work()
        except BaseException as raised:  # noqa: BLE001 - delivered
            error = raised
        with thread.lock:
            thread.job = None
        if not job.is_given_up:
            self._ended.append((job, result, error))
            self._wake_loop()

    def _wake_loop(self) -> None:
        if self._is_drain_due:
            return
        self._is_drain_due = True
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            _LOGGER.debug("a step ended after its worker")


def _clean_up(job: _Job) -> None:
    _LOGGER.info("workflow code that was given up has come back: %s", job.label)
    try:
        job.clean_up()
    except BaseException:
        _LOGGER.warning("taking down %s failed", job.label, exc_info=True)


def _frame_of(thread: threading.Thread) -> FrameType | None:
    frames: dict[int, FrameType] = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    return frames.get(thread.ident or 0)


def _is_in_user_code(thread: threading.Thread) -> bool:
    frame = _frame_of(thread)
    return frame is not None and is_of_user(frame.f_code.co_filename)


def _stack_of(thread: threading.Thread) -> str:
    """Where it is: the user's innermost line, then how it came there and what that has called."""
    frame = _frame_of(thread)
    if frame is None:
        return "unknown"
    shown = [
        summary
        for summary in reversed(traceback.extract_stack(frame))
        if not is_of_worker(summary.filename)
    ]
    index = next((i for i, summary in enumerate(shown) if is_of_user(summary.filename)), 0)
    first = [shown[index], *shown[:index], *shown[index + 1 :]]
    return "\n".join(
        f"  {summary.filename}:{summary.lineno} in {summary.name}: {summary.line}"
        for summary in first
        if is_of_user(summary.filename) or summary in shown[: index + 1]
    )
