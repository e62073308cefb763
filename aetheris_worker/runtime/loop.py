"""The event loop that workflow code runs on.

Invariant: what runs next depends only on what was scheduled before: a FIFO of ready callbacks, and
conditions checked in the order they were set whenever the FIFO is empty. Time stands still while
the loop runs and is set from outside; a timer is not waited for here but handed to the run, which
turns it into a command. Everything that needs threads, sockets, files or signals raises
ForbiddenCallError naming the place in user code.
"""

import asyncio
import contextvars
import logging
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol, TypeVar, TypeVarTuple, cast

from aetheris_worker.runtime.call_site import call_site
from aetheris_worker.runtime.errors import ForbiddenCallError, ReadOnlyError, RunEvictedError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LOGGER = logging.getLogger("aetheris.workflow")

# One coroutine may answer the eviction by awaiting again (`except BaseException: continue`); after
# this many tries it is left to the garbage collector.
_EVICTION_TRIES: Final = 100
_FIRST_PRUNE: Final = 64


class Timer(Protocol):
    """What a run makes of a delayed callback."""

    def cancel(self) -> None:
        """The callback is not wanted any more."""
        ...


StartTimer = Callable[[float, Callable[[], None]], Timer]


class WorkflowFuture(asyncio.Future[T]):
    """A future whose place in a set does not depend on its address in memory.

    asyncio keeps futures and tasks in sets and iterates over them (wait, TaskGroup); with the
    default hash their order, and so the order of commands, would differ between two replays.
    """

    def __init__(self, loop: "WorkflowLoop") -> None:
        super().__init__(loop=loop)
        self.order = loop.next_order()

    def __hash__(self) -> int:
        return self.order

    def __eq__(self, other: object) -> bool:
        return self is other


class WorkflowTask(asyncio.Task[T]):
    """A task with the same property as WorkflowFuture."""

    def __init__(
        self,
        coro: Generator[Any, Any, T] | Coroutine[Any, Any, T],
        *,
        loop: "WorkflowLoop",
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        # The base class already hashes itself, into asyncio's set of all tasks.
        self.order = loop.next_order()
        # asyncio's own default name counts over the whole process.
        super().__init__(
            cast(Any, coro), loop=loop, name=name or f"task-{self.order}", context=context
        )
        # An evicted run's tasks end pending, on purpose.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.order

    def __eq__(self, other: object) -> bool:
        return self is other


class ReadyCallback(asyncio.Handle):
    """A callback in the FIFO. Leaner than its base: no debug mode, no exception handler."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: contextvars.Context | None,
    ) -> None:
        # The base's __init__ is left out on purpose: none of its fields are used.
        self.callback = callback
        self.args = args
        self.context = context if context is not None else contextvars.copy_context()
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def __repr__(self) -> str:
        return f"<ReadyCallback {self.callback!r}>"


class DelayedCallback(asyncio.TimerHandle):
    """A callback that a timer of the run will make ready."""

    __slots__ = ("ready", "ready_time", "timer")

    def __init__(self, ready_time: float, ready: ReadyCallback) -> None:
        # The base's __init__ is left out on purpose: none of its fields are used.
        self.ready_time = ready_time
        self.ready = ready
        self.timer: Timer | None = None

    def when(self) -> float:
        return self.ready_time

    def cancel(self) -> None:
        if not self.ready.is_cancelled:
            self.ready.is_cancelled = True
            if self.timer is not None:
                self.timer.cancel()

    def cancelled(self) -> bool:
        return self.ready.is_cancelled

    def __repr__(self) -> str:
        return f"<DelayedCallback {self.ready_time}>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class WorkflowLoop(asyncio.AbstractEventLoop):
    """See the module. One per run; `run` and `owner` are for the runtime alone.

    Attributes:
        owner: The run, for code that finds its way from the running loop.
        now: Seconds since the epoch; what `time` answers.
        read_only: Set while a query handler runs: whatever would change the run raises.
    """

    def __init__(self, owner: object, start_timer: StartTimer) -> None:
        self.owner = owner
        self.now = 0.0
        self.read_only = False
        self._start_timer = start_timer
        self._ready: deque[ReadyCallback] = deque()
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._tasks: list[WorkflowTask[Any]] = []
        self._prune_at = _FIRST_PRUNE
        self._order = 0
        self._evicted = False

    def next_order(self) -> int:
        """The next number in the order in which the run made its futures and tasks."""
        self._order += 1
        return self._order

    # What the runtime calls.

    def run_until_idle(self, is_over: Callable[[], bool]) -> None:
        """Run ready callbacks and satisfied conditions until there are none, or is_over().

        An exception of a callback ends the activation: it passes through.
        """
        ready = self._ready
        with self.entered():
            while not is_over():
                if ready:
                    handle = ready.popleft()
                    if not handle.is_cancelled:
                        handle.context.run(handle.callback, *handle.args)
                elif not self._satisfy_conditions():
                    return

    @contextmanager
    def entered(self) -> Generator[None]:
        """Make this the running loop of the thread, in place of the one that may be running."""
        outer = events._get_running_loop()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        outer_task = _suspend_current_task(outer)
        outer_hooks = sys.get_asyncgen_hooks()
        # With the outer loop's hooks, that loop would adopt this run's async generators and close
        # them whenever the garbage collector finds them.
        sys.set_asyncgen_hooks(None, _drop)
        events._set_running_loop(self)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
        try:
            yield
        finally:
            events._set_running_loop(outer)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
            sys.set_asyncgen_hooks(*outer_hooks)
            _resume_current_task(outer, outer_task)

    def add_condition(self, predicate: Callable[[], bool]) -> asyncio.Future[None]:
        """A future that is done once the predicate, asked whenever the loop is idle, holds."""
        future: asyncio.Future[None] = self.create_future()
        self._conditions.append((predicate, future))
        return future

    def check_writable(self, call: str) -> None:
        """Refuse what would change the run while nothing may.

        Raises:
            ReadOnlyError: A query handler or a condition is running.
            RunEvictedError: The run is being taken down.
        """
        if self._evicted:
            raise RunEvictedError
        if self.read_only:
            raise ReadOnlyError(call)

    def evict(self) -> None:
        """Take all coroutines down. Their `finally` blocks run, but cannot await or do anything to
        the run; one that resists is dropped as it is.
        """
        self._evicted = True
        self._ready.clear()
        self._conditions.clear()
        with self.entered():
            for task in self._tasks:
                if not task.done():
                    _take_down(task)
        self._tasks.clear()
        # Taking coroutines down wakes those that wait for them.
        self._ready.clear()

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
            except Exception as error:  # noqa: BLE001 - raised where the condition is awaited
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
        ready = ReadyCallback(callback, args, context)
        handle = DelayedCallback(self.now + delay, ready)
        if delay <= 0:
            self._ready.append(ready)
        else:
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
        if self._evicted:
            raise RunEvictedError
        return WorkflowFuture[Any](self)

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
        task = WorkflowTask(coro, loop=self, name=name, context=context)
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


def _take_down(task: WorkflowTask[Any]) -> None:
    coroutine = cast(Coroutine[Any, Any, Any], task.get_coro())
    for _ in range(_EVICTION_TRIES):
        try:
            coroutine.throw(RunEvictedError())
        except BaseException:  # noqa: BLE001 - whatever it ends with, it has ended
            return
    _LOGGER.warning("evicted workflow code goes on awaiting; it is dropped as it is: %r", coroutine)


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


def _forbidden(call: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(self: WorkflowLoop, *_: object, **__: object) -> NoReturn:
        raise ForbiddenCallError(call, call_site(), instead)

    return refuse


_NO_IO: Final = "do I/O in an activity"
_NO_THREADS: Final = "run blocking or parallel code in an activity"
_NO_CONTROL: Final = "the loop of a workflow is run by the worker"
_FORBIDDEN: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            *("add_reader", "add_writer", "remove_reader", "remove_writer"),
            *("connect_accepted_socket", "connect_read_pipe", "connect_write_pipe"),
            *("create_connection", "create_datagram_endpoint", "create_server"),
            *("create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo"),
            *("sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into"),
            *("sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile"),
            *("sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell"),
        ],
        _NO_IO,
    ),
    **dict.fromkeys(
        ["call_soon_threadsafe", "run_in_executor", "set_default_executor"], _NO_THREADS
    ),
    **dict.fromkeys(
        [
            *("add_signal_handler", "remove_signal_handler", "close", "stop", "run_forever"),
            *("run_until_complete", "set_debug", "set_exception_handler", "set_task_factory"),
            *("shutdown_asyncgens", "shutdown_default_executor"),
        ],
        _NO_CONTROL,
    ),
}
for _name, _instead in _FORBIDDEN.items():
    setattr(WorkflowLoop, _name, _forbidden(f"loop.{_name}", _instead))

__all__ = ["DelayedCallback", "Timer", "WorkflowFuture", "WorkflowLoop", "WorkflowTask"]
