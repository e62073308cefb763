"""The event loop that workflow code runs on.

Invariant: what runs next depends only on what was scheduled before: a FIFO of ready callbacks, and
conditions checked in the order they were set whenever the FIFO is empty, or as good as empty. Time
stands still while the loop runs and is set from outside; a timer is not waited for here but handed
to the run, which turns it into a command. Everything that needs threads, sockets, files or signals
raises ForbiddenCallError naming the place in user code.
"""

import asyncio
import contextvars
import ctypes
import logging
import math
import sys
import zlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from aetheris_worker.durations import check_delay
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.callbacks import DelayedCallback, ReadyCallback, Timer
from aetheris_worker.runtime.errors import ReadOnlyError, RunEvictedError
from aetheris_worker.runtime.forbidden import FORBIDDEN, refusal
from aetheris_worker.runtime.futures import WorkflowFuture, WorkflowTask

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LOGGER = logging.getLogger("aetheris.workflow")

# One coroutine may answer the eviction by awaiting again (`except BaseException: continue`); after
# this many tries it stays as it is.
_EVICTION_TRIES: Final = 100
# So often an evicted run is told that it can do nothing; then its calls seem to succeed, without
# effect: code that repeats a call for as long as it raises would never come back.
_REFUSALS: Final = 100
# Counted, not timed: a replay must come to the same.
_PATIENCE: Final = 1_000
_FIRST_PRUNE: Final = 64
_HASH_BITS: Final = 20


StartTimer = Callable[[float, Callable[[], None]], Timer]


class WorkflowLoop(asyncio.AbstractEventLoop):
    """See the module. One per run.

    Attributes:
        owner: The run, for code that finds its way from the running loop; None once evicted.
        now: Seconds since the epoch; what `time` answers.
        read_only: Set while a query handler runs: whatever would change the run raises.
        turn_count: How often control came back from the code in this activation.
    """

    def __init__(self, owner: object, start_timer: StartTimer, salt: str = "") -> None:
        self.owner = owner
        self.now = 0.0
        self.read_only = False
        self.turn_count = 0
        self._start_timer = start_timer
        self._ready: deque[ReadyCallback] = deque()
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._tasks: list[WorkflowTask[Any]] = []
        self._prune_at = _FIRST_PRUNE
        # asyncio keeps the tasks of all loops in one set, where those of two runs must not collide.
        self._next_hash = zlib.crc32(salt.encode()) << _HASH_BITS
        self._evicted = False
        self._refusal_count = 0

    def next_hash(self) -> int:
        """A hash that depends on the run and on how many futures and tasks it has made."""
        self._next_hash += 1
        return self._next_hash

    # What the runtime calls.

    @property
    def is_idle(self) -> bool:
        """Nothing is to run but what conditions may bring."""
        return not self._ready

    def run_until_idle(self, is_over: Callable[[], bool]) -> None:
        """Run ready callbacks and satisfied conditions until there are none, or is_over().

        Callbacks that do nothing but call for themselves again count as none, once each has had
        _PATIENCE turns in a row: so does a cancel scope of anyio pester a task that waits for an
        activity to be cancelled. They go on in the next activation.

        An exception of a callback ends the activation: it passes through.
        """
        ready = self._ready
        repeat_count = self.turn_count = 0
        with self.entered():
            while not is_over():
                self.turn_count += 1
                if not ready:
                    if not self._satisfy_conditions():
                        return
                    continue
                count = len(ready)
                handle = ready.popleft()
                if handle.is_cancelled:
                    continue
                handle.context.run(handle.callback, *handle.args)
                if len(ready) != count or not ready[-1].repeats(handle):
                    repeat_count = 0
                    continue
                repeat_count += 1
                if repeat_count > _PATIENCE * count:
                    if not self._satisfy_conditions():
                        return
                    repeat_count = 0

    def entered(self) -> "_Entered":
        """For the block, this is the running loop of the thread, in place of what may be one."""
        return _Entered(self)

    def add_condition(self, predicate: Callable[[], bool]) -> asyncio.Future[None]:
        """A future that is done once the predicate, asked whenever the loop is idle, holds."""
        future: asyncio.Future[None] = self.create_future()
        self._conditions.append((predicate, future))
        return future

    @property
    def has_conditions(self) -> bool:
        """Whether some wait to hold."""
        return bool(self._conditions)

    def check_writable(self, call: str) -> None:
        """Refuse what would change the run while nothing may.

        Raises:
            ReadOnlyError: A query handler or a condition is running.
            RunEvictedError: The run is being taken down, and has not been told so often yet.
        """
        if self._evicted:
            self._refusal_count += 1
            if self._refusal_count <= _REFUSALS:
                raise RunEvictedError
        elif self.read_only:
            raise ReadOnlyError(call)

    def evict(self) -> None:
        """Take all coroutines down. Their `finally` blocks run, but cannot await or do anything to
        the run; one that resists stays as it is.
        """
        self._evicted = True
        self._ready.clear()
        self._conditions.clear()
        live = self.live_tasks()
        if live:
            with self.entered():
                for task in live:
                    _take_down(task)
        self._tasks.clear()
        # Taking coroutines down wakes those that wait for them.
        self._ready.clear()
        self.owner = None
        self._start_timer = _start_none

    def live_tasks(self) -> list[WorkflowTask[Any]]:
        """Tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def _satisfy_conditions(self) -> bool:
        """Complete the futures whose predicates hold; False if there was none."""
        if not self._conditions:
            return False
        satisfied = False
        waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        for predicate, future in self._conditions:
            if future.done():
                continue
            try:
                holds = self.holds(predicate)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised where it is awaited
                future.set_exception(error)
                satisfied = True
                continue
            if holds:
                future.set_result(None)
                satisfied = True
            else:
                waiting.append((predicate, future))
        self._conditions = waiting
        return satisfied

    def holds(self, predicate: Callable[[], bool]) -> bool:
        """Ask a predicate, which may not change anything."""
        self.read_only = True
        try:
            return bool(predicate())
        finally:
            self.read_only = False

    # What asyncio calls.

    def time(self) -> float:
        return self.now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if self.read_only:
            raise ReadOnlyError("waking other code")
        handle = ReadyCallback(callback, args, context)
        if not self._evicted:
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self.check_writable("starting a timer")
        check_delay(delay)
        ready = ReadyCallback(callback, args, context)
        handle = DelayedCallback(self.now + delay, ready)
        if self._evicted:
            return handle
        if delay <= 0:
            self._ready.append(ready)
        elif delay != math.inf:
            handle.timer = self._start_timer(delay, lambda: self._ready.append(ready))
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.now, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        # Also for an evicted run: who awaits it gives control back.
        return WorkflowFuture[Any](self, self.next_hash())

    def create_task(
        self,
        coro: Generator[Any, Any, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        try:
            self.check_writable("starting a task")
        except BaseException:
            coro.close()
            raise
        task = WorkflowTask(
            coro, loop=self, hash_value=self.next_hash(), name=name, context=context
        )
        if self._evicted:
            coro.close()
            return task
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = max(_FIRST_PRUNE, 2 * len(self._tasks))
        return task

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Mostly called by the garbage collector, for the exception of a task that nobody awaited:
        # its time is not deterministic, so it must not have any effect on the run.
        if not self._evicted:
            _LOGGER.warning("%s", context.get("message"), exc_info=context.get("exception"))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """DelayedCallback cancels its timer by itself."""


def _start_none(_: float, __: Callable[[], None]) -> Timer:
    raise RunEvictedError


class _Entered:
    """See `WorkflowLoop.entered`; each workflow task has some."""

    __slots__ = ("_loop", "_outer", "_outer_hooks", "_outer_task", "_was_guarded")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._outer: asyncio.AbstractEventLoop | None = events._get_running_loop()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
        self._outer_task = _suspend_current_task(self._outer)
        self._outer_hooks = sys.get_asyncgen_hooks()
        # With the outer loop's hooks, that loop would adopt this run's async generators and close
        # them whenever the garbage collector finds them.
        sys.set_asyncgen_hooks(None, _drop)
        self._was_guarded = guard.enter()
        events._set_running_loop(self._loop)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]

    def __exit__(self, *_: object) -> None:
        guard.leave(self._was_guarded)
        events._set_running_loop(self._outer)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
        sys.set_asyncgen_hooks(*self._outer_hooks)
        _resume_current_task(self._outer, self._outer_task)


def _take_down(task: WorkflowTask[Any]) -> None:
    coroutine = cast(Coroutine[Any, Any, Any], task.get_coro())
    for _ in range(_EVICTION_TRIES):
        try:
            # Where it has run: elsewhere, its context variables could not be reset.
            task.context.run(coroutine.throw, RunEvictedError())
        except BaseException:  # noqa: BLE001 - whatever it ends with, it has ended
            return
    _LOGGER.warning("evicted workflow code goes on awaiting; it stays in memory: %r", coroutine)
    # The garbage collector would close it outside of this loop, where such code may never come
    # back, not even at the end of the process: so nothing may ever collect it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def _drop(_: object) -> None:
    """Forget an unfinished async generator without running any of its code."""


def _suspend_current_task(loop: asyncio.AbstractEventLoop | None) -> object:
    # From Python 3.14 on, a thread has one current task, not one per loop.
    if sys.version_info >= (3, 14) and loop is not None:
        return cast(Any, asyncio.tasks)._swap_current_task(loop, None)
    return None


def _resume_current_task(loop: asyncio.AbstractEventLoop | None, task: object) -> None:
    if sys.version_info >= (3, 14) and loop is not None:
        cast(Any, asyncio.tasks)._swap_current_task(loop, task)


for _method in FORBIDDEN:
    setattr(WorkflowLoop, _method, refusal(_method))
