"""Threads for activities that are plain functions.

Unlike those of concurrent.futures they do not keep the process from ending: an activity that hangs
is left behind when the worker has ended.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NAME: Final = "aetheris-activity"


class ActivityThreads(Executor):
    """As many threads as are needed at a time, and no more than `max_workers`."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread_count = 0
        self._idle_count = 0
        self._is_shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call it in a thread, as soon as one is free.

        Raises:
            RuntimeError: It was shut down.
        """
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("the worker has ended")
            self._queue.put(call)
            if self._idle_count > 0:
                self._idle_count -= 1
            elif self._thread_count < self._max_workers:
                self._thread_count += 1
                name = f"{NAME}-{self._thread_count}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; those that run are left alone, and never waited for."""
        with self._lock:
            self._is_shut_down = True
            for _ in range(self._thread_count):
                self._queue.put(None)

    def _serve(self) -> None:
        while True:
            call: Any = self._queue.get()
            if call is None:
                return
            call()
            del call
            with self._lock:
                self._idle_count += 1
