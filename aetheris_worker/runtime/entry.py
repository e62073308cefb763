"""Calls the user's workflow class: run, signals, queries; and decides how the run ends.

Signals that came before the run's first task are handled before its run method begins.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from typing import Any, TypeVarTuple, cast

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import HistoryEvent, UpdateRequest
from aetheris_client.errors import AetherisError, CancelledError, FailureError, PayloadEncodeError
from aetheris_client.failure import to_failure
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime.call_site import CallSite
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.errors import (
    PASSING,
    ContinueAsNewError,
    ForbiddenCallError,
    fault_behind,
)
from aetheris_worker.runtime.machines.lifecycle import (
    CancelRunCommand,
    ClosingCommand,
    CompleteRunCommand,
    ContinueRunCommand,
    FailRunCommand,
)
from aetheris_worker.runtime.machines.signal import AsyncFunction
from aetheris_worker.runtime.machines.update import UpdateBox
from aetheris_worker.runtime.queries import BUILT_IN_QUERIES, METADATA, describe_handlers
from aetheris_worker.runtime.run import WorkflowRun
from aetheris_worker.runtime.stack_trace import stack_trace

Ts = TypeVarTuple("Ts")


class QueryNotFoundError(AetherisError):
    """The workflow has no such query handler."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"query {name!r} not found; the workflow has {known}")
        self.name = name


class WorkflowNotBegunError(AetherisError):
    """A query came before the run's first workflow task was completed."""

    def __init__(self) -> None:
        super().__init__("the run's code has not begun yet")


class WorkflowEntry:
    """One instance of the user's class.

    Attributes:
        closing: How the code ended the run; None while it goes on.
        error: What the code raised that neither ends the run nor may be ignored: the workflow task
            fails with it.
    """

    def __init__(self, definition: WorkflowDefinition, run: WorkflowRun) -> None:
        self.closing: ClosingCommand | None = None
        self.error: BaseException | None = None
        self._definition = definition
        self._run = run
        self._instance: Any = None
        self._main: asyncio.Task[None] | None = None
        # Nothing of the worker's own context variables reaches the code.
        self._context = contextvars.Context()
        run.run_method = definition.run
        run.signals.on_error = self._end

    def let_go(self) -> None:
        """The run is taken down: refer to it no longer through what it is made of."""
        self._run.signals.on_error = None
        updates = self._run.parts.find(UpdateBox)
        if updates is not None:
            updates.on_error = updates.fails_update = None

    def is_over(self) -> bool:
        """Nothing the code could do now would count."""
        return self.closing is not None or self.error is not None

    def create(self, started: HistoryEvent) -> None:
        """The run's first event: make the instance, before anything else runs."""
        self._run.first_event = started
        self._run.loop.call_soon(self._create, context=self._context)

    def begin(self, arguments: Payloads) -> None:
        """Call the run method, after what has been asked for before."""
        self._run.loop.call_soon(self._begin, arguments, context=self._context)

    def call_soon(self, callback: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Call it in the code's own context, behind what has been asked for before."""
        self._run.loop.call_soon(callback, *arguments, context=self._context)

    def judge(self, request: UpdateRequest) -> bool:
        """Whether an update is accepted; it is not called, and nothing else runs.

        Raises:
            Exception: Its validator did what it must not.
        """
        with self._run.loop.entered():
            return self._context.run(self._updates().judge, request)

    def update(self, request: UpdateRequest, *, is_judged: bool) -> None:
        """Call the update's handler, if it is, or was, accepted."""
        self.call_soon(self._updates().deliver, request, is_judged)

    def _updates(self) -> UpdateBox:
        box = self._run.parts.make(UpdateBox)
        box.on_error, box.fails_update = self._give_up, self._fails_the_run
        return box

    def cancel(self) -> None:
        """Cancel the run method; where it has not begun, once it first waits."""
        self._run.cancel_requested = True
        self._run.loop.call_soon(self._cancel, context=self._context)

    def query(self, name: str, arguments: Payloads) -> Payloads | None:
        """Ask a query handler; whatever it raises passes through.

        Raises:
            QueryNotFoundError: There is none of that name.
            WorkflowNotBegunError: There is nothing to ask yet.
        """
        if self._instance is None:
            raise WorkflowNotBegunError
        run = self._run
        if name in BUILT_IN_QUERIES:
            return run.converter.to_payloads([self._answer_built_in(name)])
        handler = run.queries.find(name)
        if handler is None:
            raise QueryNotFoundError(name, [*sorted(run.queries.handlers), *BUILT_IN_QUERIES])
        run.loop.read_only = True
        try:
            with run.loop.entered():
                values = handler.decode(name, arguments, run.converter)
                answer = self._context.run(handler.function, *values)
                return run.converter.to_payloads([answer], [handler.result_type])
        finally:
            run.loop.read_only = False

    def _answer_built_in(self, name: str) -> object:
        if name == METADATA:
            run = self._run
            updates = run.parts.find(UpdateBox)
            return describe_handlers(
                self._definition,
                run.signals.handlers,
                run.queries.handlers,
                updates.handlers if updates is not None else {},
            )
        if self.is_over():
            return "the run's code has ended"
        return stack_trace(self._run.loop.live_tasks())

    def check_alive(self) -> None:
        """Notice a run method that has ended and left no trace: the run would be stuck for good."""
        main = self._main
        if main is not None and main.done() and not self.is_over():
            self.error = RuntimeError(f"the run method ended in an unknown way: {main!r}")

    def _create(self) -> None:
        try:
            self._instance = self._definition.cls()
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - decided there
            self._end(error)
        else:
            self._run.signals.bind(self._definition, self._instance)
            self._run.queries.bind(self._definition, self._instance)
            if self._definition.updates or self._definition.dynamic_update is not None:
                self._updates().bind(self._definition, self._instance)

    def _begin(self, arguments: Payloads) -> None:
        types = signature_of(self._definition.run).types_of(len(arguments.payloads))
        try:
            values = self._run.converter.from_payloads(arguments, types)
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            self._end(fault_behind(error))
            return
        self._main = self._run.loop.create_task(self._guard_main(values), name="run")
        if self._run.cancel_requested:
            self._run.loop.call_soon(self._cancel, context=self._context)

    def _cancel(self) -> None:
        # A request that came before the run method began waits for its first step: a task that is
        # cancelled before it begins never runs, and its code could not clean up.
        if self._main is not None:
            self._main.cancel()

    # Makes the user's coroutine itself: one that is made for a task that never begins would warn
    # that it was never awaited.
    async def _guard_main(self, arguments: Sequence[object]) -> None:
        try:
            try:
                result = await cast(AsyncFunction, self._definition.run)(self._instance, *arguments)
            except PASSING:
                raise
            except BaseException as error:
                if self._ends_the_run(error):
                    await self._wait_for_handlers()
                raise
            await self._wait_for_handlers()
            self._close(CompleteRunCommand(self._encode_result(result)))
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - decided there
            self._end(error)

    async def _wait_for_handlers(self) -> None:
        if self._definition.waits_for_handlers:
            run = self._run
            await run.wait_condition(lambda: run.all_handlers_finished, None)

    def _encode_result(self, result: object) -> Payloads | None:
        types = [signature_of(self._definition.run).result_type]
        try:
            return self._run.converter.to_payloads([result], types)
        except PayloadEncodeError as error:
            # By its number it would look like an argument.
            path = f"result{error.path.removeprefix('[0]')}"
            raise PayloadEncodeError(error.type_name, path, error.reason) from error.__cause__

    def _end(self, error: BaseException) -> None:
        continuation = _continuation_in(error)
        if continuation is not None:
            self._close(ContinueRunCommand(continuation.attributes), continuation.site)
        elif self._run.cancel_requested and is_cancelled(error):
            self._close(CancelRunCommand())
        elif self._fails_the_run(error):
            try:
                failure = to_failure(error, self._run.converter)
            except Exception as reason:  # noqa: BLE001 - the workflow task fails with it
                self._give_up(reason)
            else:
                self._close(FailRunCommand(failure))
        else:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if not self.is_over():
            self.error = error

    def _ends_the_run(self, error: BaseException) -> bool:
        is_cancelled_run = self._run.cancel_requested and is_cancelled(error)
        goes_on = _continuation_in(error) is not None
        return goes_on or is_cancelled_run or self._fails_the_run(error)

    def _fails_the_run(self, error: BaseException) -> bool:
        """Whether it, or everything in its group, is an error that ends runs."""
        if isinstance(error, BaseExceptionGroup):
            leaves = cast("BaseExceptionGroup[BaseException]", error).exceptions
            return all(self._fails_the_run(leaf) for leaf in leaves)
        if isinstance(error, ForbiddenCallError):
            # A fault of the code, however wide the failure types are: nothing is decided yet.
            return False
        return isinstance(error, (FailureError, TimeoutError, *self._definition.failure_types))

    def _close(self, command: ClosingCommand, site: CallSite | None = None) -> None:
        if not self.is_over():
            self.closing = command
            self._run.commands.close(command, site)
            label = f"{self._definition.name} {self._run.id.workflow_id!r}"
            self._run.signals.warn_at_end(label)
            updates = self._run.parts.find(UpdateBox)
            if updates is not None and not self._run.is_replaying:
                updates.warn_at_end(label)


def _continuation_in(error: BaseException) -> ContinueAsNewError | None:
    """What goes on in a new run, where that is what it comes down to: by itself, or in all of a
    group, as a task group makes of it.
    """
    if isinstance(error, BaseExceptionGroup):
        leaves = cast("BaseExceptionGroup[BaseException]", error).exceptions
        found = [_continuation_in(leaf) for leaf in leaves]
        return found[0] if all(found) else None
    return error if isinstance(error, ContinueAsNewError) else None


def is_cancelled(error: BaseException | None) -> bool:
    """Whether cancellation is what it comes down to: by itself, through a failure's causes, or in
    all of a group.
    """
    if isinstance(error, BaseExceptionGroup):
        leaves = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(is_cancelled(leaf) for leaf in leaves)
    while isinstance(error, FailureError) and not isinstance(error, CancelledError):
        error = error.__cause__
    return isinstance(error, (CancelledError, asyncio.CancelledError))
