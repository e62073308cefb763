"""One of the processes, as the supervisor sees it: over all its lives, until it is told to end.

ends before any start of it has served   by itself: StartFailedError; by a signal: started again, a
                                         few times
ends later                               started again, after a pause that doubles while its lives
                                         are short
is silent for HUNG_SECONDS               killed, and so started again: whoever connects to the
                                         public port would meet it as often as before
"""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from contextlib import ExitStack, suppress

from aetheris_server.config import Settings
from aetheris_server.loops import end_tasks, is_cancelled, pause
from aetheris_server.processes.channel import (
    CHANNEL_VARIABLE,
    AskMetrics,
    Begin,
    Channel,
    Drain,
    Failed,
    Metrics,
    Serving,
    State,
    channel_variable,
)
from aetheris_server.processes.errors import StartFailedError
from aetheris_server.processes.metrics import RESTARTS
from aetheris_server.telemetry import get_logger

HUNG_SECONDS = 10
# Until its first word: Python and its imports.
_FIRST_WORD_SECONDS = 300
# Of silence, after which it does not count as ready.
_QUIET_SECONDS = 2
_WATCH_INTERVAL = 1.0

_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
# A life so short lengthens the pause before the next.
_SHORT_LIFE = 60.0
_MAX_KILLED_STARTS = 5

_METRICS_TIMEOUT = 1.0
# What was said last is read after the end.
_LAST_WORDS_TIMEOUT = 1.0

_log = get_logger(__name__)


class Child:
    """One process.

    Attributes:
        number: From 1.
        grpc_address: Where it serves, once it has.
        internal_address: Kept by all its lives, so that each takes the shards of the one before.
        has_served: Set when a life of it has begun to serve.
        is_cut_off: Whether it was told to end, and did not end well.
    """

    def __init__(
        self, number: int, settings: Settings, shard_count: int, end_timeout: float
    ) -> None:
        self.number = number
        self.grpc_address = ""
        self.internal_address = ""
        self.has_served = asyncio.Event()
        self.is_cut_off = False
        self._settings = settings
        self._shard_count = shard_count
        self._end_timeout = end_timeout
        self._is_draining = asyncio.Event()
        self._short_lives = 0
        self._restarts = RESTARTS.labels(str(number))
        self._begin_life()

    @property
    def waits_for(self) -> str | None:
        """What the process waits for before it can serve; None if it can."""
        return "a sign of life" if self._silence > _QUIET_SECONDS else self._waits_for

    async def run(self) -> None:
        """Have the process alive until `drain`.

        Raises:
            StartFailedError: It does not start, and will not.
        """
        while not (self._is_draining.is_set() or is_cancelled()):
            begin = time.monotonic()
            status = await self._live()
            if self._is_draining.is_set():
                self.is_cut_off = self.is_cut_off or (self._has_begun_to_serve and status != 0)
                return
            is_short = time.monotonic() - begin < _SHORT_LIFE
            self._short_lives = self._short_lives + 1 if is_short else 1
            self._check_start(status)
            await self._pause_after(status)

    def drain(self) -> None:
        """Have the process finish what is in flight and end; `run` returns when it has."""
        self._is_draining.set()
        if self._channel is not None and self._has_spoken:
            self._channel.say(Drain())
        else:
            # It has nothing to finish.
            self._signal_kill()

    def kill(self) -> None:
        """End a process that was told to end by force."""
        if self._process is not None:
            self.is_cut_off = True
            self._signal_kill()

    async def ask_metrics(self) -> str | None:
        """Its metrics as Prometheus' text; None if it does not tell them within a second."""
        if self._channel is None:
            return None
        if self._answer is None or self._answer.done():
            # One question at a time, however often it is asked: a process that hangs reads none.
            self._answer = asyncio.get_running_loop().create_future()
            self._channel.say(AskMetrics())
        answer = self._answer
        await asyncio.wait([answer], timeout=_METRICS_TIMEOUT)
        return answer.result() if answer.done() else None

    # A life.

    def _begin_life(self) -> None:
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._answer: asyncio.Future[str | None] | None = None
        self._failed: Failed | None = None
        self._waits_for: str | None = "the end of its start"
        self._has_spoken = False
        self._has_begun_to_serve = False
        # Rounds of the watch, not of a clock: a supervisor that was stopped has heard nothing.
        self._silence = 0

    async def _live(self) -> int:
        """Start the process and wait for its end: its exit code, or the negative of the signal."""
        self._begin_life()
        with ExitStack() as held:
            try:
                process, end = await self._spawn(held)
            except OSError as error:
                self._failed = Failed(f"process {self.number} cannot be started: {error}", 1)
                return self._failed.exit_code
            self._process = process
            try:
                if self._is_draining.is_set():
                    self._signal_kill()
                self._channel = await Channel.open(end)
                self._channel.say(
                    Begin(
                        self.number,
                        self._settings.model_dump_json(),
                        self._shard_count,
                        self._end_timeout,
                    )
                )
                return await self._attend(process, self._channel)
            finally:
                self._end_life(process)

    async def _spawn(self, held: ExitStack) -> tuple[Process, socket.socket]:
        """Run this program again; what is held until the block is left keeps the process alive."""
        ours, theirs = socket.socketpair()
        lifeline, kept = os.pipe()
        held.callback(os.close, kept)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                env={**os.environ, CHANNEL_VARIABLE: channel_variable(theirs.fileno(), lifeline)},
                # Ctrl-C at the terminal is for this process, which then tells the others.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        _log.info("a process was started", number=self.number, pid=process.pid)
        return process, ours

    async def _attend(self, process: Process, channel: Channel) -> int:
        hearing = asyncio.create_task(self._hear(channel), name=f"hear-{self.number}")
        watching = asyncio.create_task(self._watch(process), name=f"watch-{self.number}")
        try:
            status = await process.wait()
            await asyncio.wait([hearing], timeout=_LAST_WORDS_TIMEOUT)
            return status
        finally:
            await end_tasks([hearing, watching])

    def _end_life(self, process: Process) -> None:
        if process.returncode is None:
            self._signal_kill()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None
        self._waits_for = "the end of its start"
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    async def _hear(self, channel: Channel) -> None:
        """Take in what the process says, to its end."""
        try:
            while not is_cancelled() and (message := await channel.hear()) is not None:
                self._silence = 0
                self._has_spoken = True
                match message:
                    case State():
                        self._waits_for = message.waits_for
                    case Serving():
                        self._note_serving(message)
                    case Metrics():
                        if self._answer is not None and not self._answer.done():
                            self._answer.set_result(message.text)
                    case Failed():
                        self._failed = message
                    case Begin() | Drain() | AskMetrics():
                        raise ValueError(f"{message} is for processes")
        except ValueError:
            _log.exception("a process is not understood; ending it by force", number=self.number)
            self._signal_kill()

    def _note_serving(self, message: Serving) -> None:
        self.grpc_address = message.grpc_address
        self.internal_address = message.internal_address
        port = int(message.internal_address.rpartition(":")[2])
        internal = self._settings.internal.model_copy(update={"port": port})
        self._settings = self._settings.model_copy(update={"internal": internal})
        self._has_begun_to_serve = True
        self.has_served.set()

    async def _watch(self, process: Process) -> None:
        """End the process by force when it has been silent for too long."""
        while not is_cancelled():
            await pause(_WATCH_INTERVAL)
            self._silence += 1
            if self._silence >= (HUNG_SECONDS if self._has_spoken else _FIRST_WORD_SECONDS):
                _log.error(
                    "a process hangs; ending it by force",
                    number=self.number,
                    pid=process.pid,
                    seconds=self._silence,
                )
                self._signal_kill()
                return

    def _signal_kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    # Between lives.

    def _check_start(self, status: int) -> None:
        """Raise StartFailedError if the process has never served, and another start is no use."""
        if self.has_served.is_set():
            return
        if self._failed is not None:
            raise StartFailedError(self._failed.message, self._failed.exit_code)
        if status >= 0 or self._short_lives >= _MAX_KILLED_STARTS:
            raise StartFailedError(
                f"process {self.number} ended before it served: {describe_status(status)}",
                max(status, 1),
            )

    async def _pause_after(self, status: int) -> None:
        seconds = _delay_after(self._short_lives)
        why = {"error": self._failed.message} if self._failed is not None else {}
        _log.error(
            "a process ended by itself; it is started again",
            number=self.number,
            status=describe_status(status),
            seconds=seconds,
            **why,
        )
        self._restarts.inc()
        await pause(seconds, unless=self._is_draining)


def _delay_after(short_lives: int) -> float:
    """Seconds before the next life, after n >= 1 short ones in a row, however many."""
    return min(_FIRST_DELAY * 2 ** min(short_lives - 1, 30), _MAX_DELAY)


def describe_status(status: int) -> str:
    """How a process ended, from its exit code or the negative of the signal."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
