"""A real server in a process of its own, to be killed, paused and started again."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.wait import wait_until

_ROOT = Path(__file__).parents[2]
_READY = re.compile(r"^ +gRPC +(\S+)$", re.MULTILINE)
_READY_TIMEOUT = 60.0
_EXIT_TIMEOUT = 30.0
_RUN_CLI = ("-c", "from aetheris_server.cli import main; main()")

FAST = {
    "AETHERIS_HISTORY__SHARD_COUNT": "4",
    "AETHERIS_HISTORY__LEASE_TIMEOUT": "2s",
    "AETHERIS_HISTORY__HEARTBEAT_INTERVAL": "250ms",
    "AETHERIS_HISTORY__WATERMARK_INTERVAL": "100ms",
    "AETHERIS_LOG__LEVEL": "info",
}
"""Settings with which failover takes a moment."""


class ServerProcess:
    """One server. What it prints and logs goes to a file of its own, see `output`.

    Attributes:
        arguments: Of the command line.
        environment: Settings, added to this process's environment.
        program: What Python runs: the command line, unless a test puts something before it.
        address: Where it listens; kept over restarts.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        program: Sequence[str] = _RUN_CLI,
    ) -> None:
        self.arguments = list(arguments)
        self.environment = dict(environment)
        self.program = program
        self.address: str = ""
        self._output = folder / f"server-{id(self):x}.log"
        self._output_begin = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that it has printed and logged since its first start."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start the process; on the port of the last time, if it ran before."""
        assert not self.is_running
        port = self.address.rpartition(":")[2] or "0"
        self._output_begin = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, *self.program, *self.arguments),
                    *("--port", port, "--http-port", "-1"),
                ],
                cwd=_ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def wait_ready(self) -> None:
        """Return when it says that it is ready."""

        def find_address() -> str | None:
            found = _READY.search(self.output[self._output_begin :])
            if found is None and not self.is_running:
                raise AssertionError(f"the server ended:\n{self.output}")
            return found[1] if found is not None else None

        found = await wait_until(find_address, _READY_TIMEOUT, "the server to be ready")
        assert found is not None
        self.address = found

    async def start(self) -> None:
        self.launch()
        await self.wait_ready()

    def send(self, signal_number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)

    async def wait_exit(self, timeout: float = _EXIT_TIMEOUT) -> int:
        """The exit code, negative for a signal."""
        process = self._process
        assert process is not None
        await wait_until(lambda: process.poll() is not None, timeout, "the server to end")
        return process.returncode

    async def kill(self) -> None:
        """SIGKILL; gone when it returns. Harmless if it is gone already."""
        if self.is_running:
            self.send(signal.SIGKILL)
            await self.wait_exit()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return await self.wait_exit()

    async def restart(self) -> None:
        """SIGKILL, and a new process on the same port."""
        await self.kill()
        await self.start()


@asynccontextmanager
async def running(*servers: ServerProcess) -> AsyncGenerator[None]:
    """The servers, started together; killed at the end, their output shown if the test failed."""
    try:
        for server in servers:
            server.launch()
        await asyncio.gather(*(server.wait_ready() for server in servers))
        yield
    except BaseException:
        for server in servers:
            sys.stderr.write(f"--- output of the server at {server.address}\n{server.output}\n")
        raise
    finally:
        for server in servers:
            await server.kill()


def start_arguments(postgres_dsn: str, redis_url: str) -> list[str]:
    """`aetheris-server start`."""
    return ["start", "--postgres-dsn", postgres_dsn, "--redis-url", redis_url]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin
