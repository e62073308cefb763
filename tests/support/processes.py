"""Real servers and workers in processes of their own, to be killed, paused and started again."""

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
# Of several processes, the first internal address: the others are at the ports after it.
_READY = re.compile(r"^ +gRPC +(\S+)\n +Internal +([^\s,]+)(?:, .+)?$", re.MULTILINE)
_HTTP = re.compile(r"^ +Metrics +http://(\S+):(\d+)/metrics$", re.MULTILINE)
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


class ChildProcess:
    """One process. What it prints and logs goes to a file of its own, see `output`.

    Attributes:
        environment: Added to this process's environment.
    """

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that it has printed and logged since its first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _spawn(self, *arguments: str) -> None:
        """Start Python with arguments."""
        assert not self.is_running
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=_ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def send(self, signal_number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)

    async def wait_exit(self, timeout: float = _EXIT_TIMEOUT) -> int:
        """The exit code, negative for a signal."""
        process = self._process
        assert process is not None
        await wait_until(lambda: process.poll() is not None, timeout, "the process to end")
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


class ModuleProcess(ChildProcess):
    """`python -m module arguments`, for example a worker."""

    def __init__(
        self, log: Path, environment: Mapping[str, str], module: str, *arguments: str
    ) -> None:
        super().__init__(log, environment)
        self._command = ("-m", module, *arguments)

    def launch(self) -> None:
        self._spawn(*self._command)


class ServerProcess(ChildProcess):
    """One server.

    Attributes:
        arguments: Of the command line.
        program: What Python runs: the command line, unless a test puts something before it.
        address: Where it listens; kept over restarts.
        internal_address: Where it listens for other servers; kept too.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        program: Sequence[str] = _RUN_CLI,
    ) -> None:
        settings = {"AETHERIS_HTTP__PORT": "-1", **environment}
        super().__init__(folder / f"server-{id(self):x}.log", settings)
        self.arguments = list(arguments)
        self.program = program
        self.address: str = ""
        self.internal_address: str = ""
        self._output_begin = 0

    def launch(self) -> None:
        """Start the process; on the ports of the last time, if it ran before."""
        port = self.address.rpartition(":")[2] or "0"
        internal_port = self.internal_address.rpartition(":")[2] or "0"
        self._output_begin = self._log.stat().st_size if self._log.exists() else 0
        ports = ("--port", port, "--internal-port", internal_port)
        self._spawn(*self.program, *self.arguments, *ports)

    async def wait_ready(self) -> None:
        """Return when it says that it is ready."""

        def find_addresses() -> tuple[str, str] | None:
            found = _READY.search(self.output[self._output_begin :])
            if found is None and not self.is_running:
                raise AssertionError(f"the server ended:\n{self.output}")
            return (found[1], found[2]) if found is not None else None

        found = await wait_until(find_addresses, _READY_TIMEOUT, "the server to be ready")
        assert found is not None
        self.address, self.internal_address = found

    async def wait_http(self) -> tuple[str, int]:
        """Host and port of HTTP, which is off unless `environment` sets AETHERIS_HTTP__PORT."""
        found = await wait_until(lambda: _HTTP.search(self.output[self._output_begin :]))
        assert found is not None
        return found[1], int(found[2])

    async def start(self) -> None:
        self.launch()
        await self.wait_ready()

    async def restart(self) -> None:
        """SIGKILL, and a new process on the same ports."""
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
