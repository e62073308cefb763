"""What the supervisor and a process say to each other, and by what.

Two descriptors, both named in the environment of the process: a socket, with a message in each
line, and a *lifeline*, a pipe in which nothing is ever sent and which ends with the supervisor,
however that ends.

supervisor → process   Begin, once and first; AskMetrics; Drain
process → supervisor   State, twice a second; Metrics, one for each AskMetrics; Serving, once;
                       Failed, last, if it ends because of an error that has a name
"""

import asyncio
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import orjson

CHANNEL_VARIABLE: Final = "AETHERIS_PROCESS_CHANNEL"
STATE_INTERVAL: Final = 0.5
"""Seconds between two States of a process."""

# The longest are metrics.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Begin:
    """Serve.

    Attributes:
        number: Of the process, from 1.
        settings: A `Settings`, as JSON: those of this process alone.
        shard_count: Of the cluster.
        end_timeout: Seconds that the process may take to end once it is told to.
    """

    number: int
    settings: str
    shard_count: int
    end_timeout: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish what is in flight, and end."""


@dataclass(frozen=True, slots=True)
class AskMetrics:
    """Answer with `Metrics`."""


@dataclass(frozen=True, slots=True)
class State:
    """The process is well, and its event loop too. `waits_for` None: it can serve."""

    waits_for: str | None


@dataclass(frozen=True, slots=True)
class Serving:
    """The process has begun to serve at these addresses."""

    grpc_address: str
    internal_address: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of the process as Prometheus' text."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The process ends: what it has to say to the operator, and its exit code."""

    message: str
    exit_code: int


Message = Begin | Drain | AskMetrics | State | Serving | Metrics | Failed

_KINDS: Mapping[str, type[Message]] = {
    kind.__name__: kind for kind in (Begin, Drain, AskMetrics, State, Serving, Metrics, Failed)
}


class Channel:
    """One end of the socket. Used from its event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Take over a connected socket."""
        reader, writer = await asyncio.open_connection(sock=end, limit=_MAX_MESSAGE_BYTES)
        # So that `drain` waits until all is sent.
        writer.transport.set_write_buffer_limits(high=0)
        return cls(reader, writer)

    @property
    def has_unsent(self) -> bool:
        """Whether the other side has not taken all that was said."""
        return self._writer.transport.get_write_buffer_size() > 0

    def say(self, message: Message) -> None:
        """Send a message, without waiting until the other side takes it; nothing if it is gone.

        What is said again and again is said only if `has_unsent` is false: else the messages for a
        side that is stopped would pile up.
        """
        if not self._writer.transport.is_closing():
            self._writer.write(orjson.dumps([type(message).__name__, asdict(message)]) + b"\n")

    async def hear(self) -> Message | None:
        """The next message; None when the other side is gone.

        Raises:
            ValueError: It is none that this program knows.
        """
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        name, values = orjson.loads(line)
        if name not in _KINDS:
            raise ValueError(f"unknown message {name!r}")
        try:
            return cast("Any", _KINDS[name])(**values)
        except TypeError as error:
            # Of another version: a process begins with the program as it is installed by then.
            raise ValueError(f"message {name!r} has other values: {sorted(values)}") from error

    async def flush(self, timeout: float) -> None:
        """Wait until the other side has taken all that was said, but no longer than `timeout`."""
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    def close(self) -> None:
        """Close it; what is not sent yet may be lost."""
        self._writer.transport.abort()


def is_supervised() -> bool:
    """Whether a supervisor has started this process."""
    return CHANNEL_VARIABLE in os.environ


def channel_variable(end: int, lifeline: int) -> str:
    """The value of CHANNEL_VARIABLE for a process that inherits these two descriptors."""
    return f"{end},{lifeline}"


def take_channel() -> tuple[socket.socket, int]:
    """The descriptors that the supervisor has passed to this process: the socket, and the lifeline.

    Children of this process, if any, get neither.
    """
    end, lifeline = map(int, os.environ.pop(CHANNEL_VARIABLE).split(","))
    os.set_inheritable(lifeline, False)
    taken = socket.socket(fileno=end)
    taken.set_inheritable(False)
    return taken, lifeline


def end_with_supervisor(lifeline: int) -> None:
    """End this process at once when the lifeline ends, whatever its event loop does."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
