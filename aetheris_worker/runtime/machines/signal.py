"""The signals of one run: who handles them, which wait for a handler, which are being handled.

Invariant: no signal is lost. One that no handler takes (there is none of its name, or its input is
not what the handler is annotated with) waits, in order, until the code sets a handler that does, or
until newer code replays the run. An async handler runs beside the run method until it is done.
"""

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.converter import DataConverter
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime.definitions import (
    Function,
    HandlerUnfinishedPolicy,
    WorkflowDefinition,
)
from aetheris_worker.runtime.errors import PASSING, ForbiddenCallError, fault_behind
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope

AsyncFunction = Callable[..., Awaitable[object]]

_LOGGER: Final = logging.getLogger("aetheris.workflow")


@dataclass(frozen=True, slots=True)
class SignalHandler:
    """What is called for a signal.

    Attributes:
        function: Called with `leading` and then the signal's own arguments; a dynamic one with the
            signal's name and the list of them.
        is_dynamic: It takes the signals that have no handler of their own.
    """

    function: Function
    leading: tuple[object, ...] = ()
    is_dynamic: bool = False
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON

    def decode(self, event: HistoryEvent, converter: DataConverter) -> Sequence[object]:
        """The arguments for the function.

        Raises:
            Exception: Whatever the converter raises; TypeError for a wrong number of arguments.
        """
        signaled = event.workflow_execution_signaled_event_attributes
        if self.is_dynamic:
            values = converter.from_payloads(signaled.input)
            return (*self.leading, signaled.signal_name, values)
        signature = signature_of(self.function)
        types = signature.types_of(len(signaled.input.payloads))
        values = converter.from_payloads(signaled.input, types)
        if not signature.accepts(len(values)):
            raise TypeError(f"it came with {len(values)} arguments")
        return (*self.leading, *values)


class SignalBox(RunPart):
    """See the module.

    Attributes:
        on_error: Called with what a handler raised.
        is_silent: No warnings: the code only repeats what it did before.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.on_error: Callable[[BaseException], None] | None = None
        self.is_silent = False
        self._handlers: dict[str, SignalHandler] = {}
        self._dynamic: SignalHandler | None = None
        self._waiting: list[HistoryEvent] = []
        self._running: dict[asyncio.Task[None], tuple[str, SignalHandler]] = {}

    @property
    def waiting_count(self) -> int:
        """Signals that no handler has taken."""
        return len(self._waiting)

    @property
    def all_finished(self) -> bool:
        """No async handler is at work."""
        return not self._running

    @property
    def handlers(self) -> Mapping[str, SignalHandler]:
        """By name, without the dynamic one."""
        return self._handlers

    def bind(self, definition: WorkflowDefinition, instance: object) -> None:
        """Take the handlers of the class. Those that the instance's constructor has set stay."""
        for name, handler in definition.signals.items():
            own = SignalHandler(
                handler.method, (instance,), unfinished_policy=handler.unfinished_policy
            )
            self._handlers.setdefault(name, own)
        if definition.dynamic_signal is not None and self._dynamic is None:
            self._dynamic = SignalHandler(
                definition.dynamic_signal.method,
                (instance,),
                is_dynamic=True,
                unfinished_policy=definition.dynamic_signal.unfinished_policy,
            )

    def set_handler(self, name: str | None, handler: SignalHandler | None) -> None:
        """From now on this one, or none, handles the signals of the name, or those of no other
        handler; it gets at once, in order, those that wait.
        """
        self.scope.loop.check_writable("setting a signal handler")
        if name is None:
            self._dynamic = handler
        elif handler is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = handler
        if handler is not None:
            # At once: a signal that comes in the same activation must not overtake them.
            waiting, self._waiting = self._waiting, []
            for event in waiting:
                self.deliver(event)

    def deliver(self, event: HistoryEvent) -> None:
        """Call the handler, or keep the signal."""
        name = event.workflow_execution_signaled_event_attributes.signal_name
        handler = self._handlers.get(name) or self._dynamic
        if handler is None:
            self._keep(event, "it has no handler")
            return
        # Failing the task over a bad signal would let any client stop any run for good.
        try:
            arguments = handler.decode(event, self.scope.converter)
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            if isinstance(fault_behind(error), ForbiddenCallError):
                # A fault of the types' code, which no other input mends.
                raise fault_behind(error) from None
            self._keep(event, f"its handler cannot take it: {error!r}")
            return
        self._call(name, handler, arguments)

    def warn_at_end(self, label: str) -> None:
        """The run has ended: say what that leaves undone."""
        if self.is_silent:
            return
        # One whose own error ends the run is not abandoned.
        ending = asyncio.current_task()
        unfinished = [
            name
            for task, (name, handler) in self._running.items()
            if task is not ending
            and handler.unfinished_policy is HandlerUnfinishedPolicy.WARN_AND_ABANDON
        ]
        if unfinished:
            _LOGGER.warning(
                "%s ended while signal handlers were still running, which are abandoned: %s. To "
                "wait for them: @workflow.defn(waits_for_handlers=True); where that is meant: "
                "@workflow.signal(unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)",
                label,
                _counted(unfinished),
            )
        if self._waiting:
            names = [
                event.workflow_execution_signaled_event_attributes.signal_name
                for event in self._waiting
            ]
            _LOGGER.warning("%s ended with signals that nobody handled: %s", label, _counted(names))

    def _keep(self, event: HistoryEvent, reason: str) -> None:
        self._waiting.append(event)
        if not self.is_silent:
            name = event.workflow_execution_signaled_event_attributes.signal_name
            _LOGGER.warning("signal %r stays queued: %s", name, reason)

    def _call(self, name: str, handler: SignalHandler, arguments: Sequence[object]) -> None:
        function = handler.function
        if _is_async(function):
            self._run_beside(name, handler, cast(AsyncFunction, function), arguments)
            return
        try:
            result = function(*arguments)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - decided as one of the run method's
            self._report(error)
            return
        if inspect.iscoroutine(result):
            # Of an async handler behind a plain decorator or lambda.
            self._run_beside(name, handler, lambda: result, ())

    def _run_beside(
        self,
        name: str,
        handler: SignalHandler,
        function: AsyncFunction,
        arguments: Sequence[object],
    ) -> None:
        task = self.scope.loop.create_task(self._guard(function, arguments), name=f"signal {name}")
        self._running[task] = (name, handler)
        task.add_done_callback(self._forget)

    # Makes the user's coroutine itself: one that is made for a task that never begins would warn
    # that it was never awaited.
    async def _guard(self, function: AsyncFunction, arguments: Sequence[object]) -> None:
        try:
            await function(*arguments)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - decided there
            self._report(error)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    def _report(self, error: BaseException) -> None:
        assert self.on_error is not None
        self.on_error(error)


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(cast(Any, function), "__call__", None)  # noqa: B004 - its own, not whether it has one
    )


def _counted(names: Iterable[str]) -> str:
    """As in `'approve' (2), 'note' (1)`."""
    return ", ".join(f"{name!r} ({count})" for name, count in Counter(names).items())


def _signaled(parts: Parts, code: RunCode, event: HistoryEvent) -> None:
    code.call_soon(parts.make(SignalBox).deliver, event)


MACHINE: Final = Machine(
    name="signal",
    events={history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: _signaled},
)
