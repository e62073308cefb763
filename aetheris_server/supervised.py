"""One host of several: what a process does that a supervisor has started.

Serves as `aetheris-server start` does, but for settings, orders and last words, which come and go
by the channel. HTTP is the supervisor's.
"""

import asyncio
import socket
from typing import NoReturn

import uvloop

from aetheris_server.config import ConfigError, Settings
from aetheris_server.errors import AetherisError
from aetheris_server.garbage import look_at_old_objects_rarely
from aetheris_server.loops import end_tasks, is_cancelled, pause, run_loops
from aetheris_server.main import run_server
from aetheris_server.processes.channel import (
    STATE_INTERVAL,
    AskMetrics,
    Begin,
    Channel,
    Drain,
    Failed,
    Metrics,
    Serving,
    State,
    end_with_supervisor,
    take_channel,
)
from aetheris_server.processes.metrics import show_metrics
from aetheris_server.shutdown import Shutdown
from aetheris_server.telemetry import configure_logging, get_logger
from aetheris_server.web import Readiness

_BEGIN_TIMEOUT = 30.0
_LAST_WORDS_TIMEOUT = 2.0

_log = get_logger(__name__)


def run_supervised() -> NoReturn:
    """Serve until the supervisor says to drain, or a signal does; ends this process at once when
    the supervisor is gone.
    """
    end, lifeline = take_channel()
    end_with_supervisor(lifeline)
    look_at_old_objects_rarely()
    raise SystemExit(uvloop.run(_run(end)))


async def _run(end: socket.socket) -> int:
    """Serve; the exit code."""
    channel = await Channel.open(end)
    async with asyncio.timeout(_BEGIN_TIMEOUT):
        begin = await channel.hear()
    assert isinstance(begin, Begin)
    settings = Settings.model_validate_json(begin.settings)
    configure_logging(settings.log, str(begin.number))
    host = SupervisedHost(begin, settings, channel)
    talking = asyncio.create_task(host.talk(), name="talk")
    try:
        return 0 if await host.shutdown.run(host.serve()) else 1
    except ConfigError as error:
        channel.say(Failed(str(error), 2))
        return 2
    except AetherisError as error:
        channel.say(Failed(str(error), 1))
        return 1
    finally:
        await end_tasks([talking])
        await channel.flush(_LAST_WORDS_TIMEOUT)


class SupervisedHost:
    """The host of this process, and its talk with the supervisor.

    Attributes:
        shutdown: How this process ends.
    """

    def __init__(self, begin: Begin, settings: Settings, channel: Channel) -> None:
        self.shutdown = Shutdown(begin.end_timeout)
        self._begin = begin
        self._settings = settings
        self._channel = channel
        self._readiness: Readiness = lambda: "the end of its start"

    async def serve(self) -> None:
        """Serve until `shutdown` says otherwise."""
        async with run_server(self._settings, self._begin.shard_count) as server:
            self._readiness = server.readiness
            self._channel.say(State(self._readiness()))
            self._channel.say(Serving(server.grpc_address, server.internal_address))
            await self.shutdown.wait()

    async def talk(self) -> None:
        """Listen and tell, until cancelled or until the supervisor is gone. A process that cannot
        drains: it could not be told to later, and another start may do better.
        """
        try:
            await run_loops(self.listen(), self.tell())
        except Exception:  # noqa: BLE001 - logged whole
            _log.exception("this process and its supervisor do not understand each other")
            self.shutdown.ask()

    async def listen(self) -> None:
        """Do what the supervisor asks for, until cancelled or until it is gone."""
        while not is_cancelled() and (message := await self._channel.hear()) is not None:
            if isinstance(message, Drain):
                self.shutdown.ask()
            elif isinstance(message, AskMetrics):
                self._channel.say(Metrics(show_metrics(str(self._begin.number))))

    async def tell(self) -> None:
        """Tell the supervisor again and again how this process is, until cancelled."""
        while not is_cancelled():
            if not self._channel.has_unsent:
                self._channel.say(State(self._readiness()))
            await pause(STATE_INTERVAL)
