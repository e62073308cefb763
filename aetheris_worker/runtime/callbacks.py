"""The handles that the loop gives out for callbacks. Leaner than their bases, whose fields they
leave unused.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What a run makes of a delayed callback."""

    def cancel(self) -> None:
        """The callback is not wanted any more."""
        ...


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

    def repeats(self, other: "ReadyCallback") -> bool:
        """Whether it calls the same with the same."""
        return (
            self.callback == other.callback
            and len(self.args) == len(other.args)
            and all(mine is its for mine, its in zip(self.args, other.args, strict=True))
        )

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
