"""The processes of the demo: one server, two workers. Whatever happens, none outlives the demo."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aetheris_client import Client
from aetheris_client.errors import UnavailableError
from aetheris_server.embedded.stores import embedded_stores

SERVER: Final = "server"
WORKERS: Final = {"worker-1": (), "worker-2": ("parse",)}
"""The workers' names, and what each can do."""

READY_TIMEOUT: Final = 60.0
SERVER_STOP_TIMEOUT: Final = 20.0
# A worker that finds no server keeps trying to hand in its answers; here nobody waits for them.
WORKER_STOP_TIMEOUT: Final = 5.0
_KILL_TIMEOUT: Final = 5.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Program:
    """A program that runs as a process of its own, is killed, and is started again."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 if it was never started."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it; its output is added to the log."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which then stops everything in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """End it with SIGKILL: it learns nothing of it and can save nothing."""
        await self._end(signal.SIGKILL, _KILL_TIMEOUT)

    async def stop(self, timeout: float) -> bool:
        """End it with SIGTERM, or by force after so many seconds; whether it ended in order."""
        try:
            await self._end(signal.SIGTERM, timeout)
        except TimeoutError:
            await self.kill()
        return self._process is not None and self._process.returncode == 0

    def check_running(self) -> None:
        """Raises DemoError, with the end of the log, if it ended by itself."""
        if self._process is not None and self._process.returncode is not None:
            code = self._process.returncode
            lines = self.log.read_text(errors="replace").splitlines()[-15:]
            problem = f"{self.name} ended unexpectedly with {code}; its log {self.log} ends:"
            raise DemoError("\n".join([problem, *lines]))

    async def _end(self, number: signal.Signals, timeout: float) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await asyncio.wait_for(self._process.wait(), timeout)


class Cluster:
    """A server and its workers on this machine; `async with` starts and stops them.

    Args:
        folder: An existing folder for the server's data and the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._data = folder / "server"
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)
        port, internal_port = self.address.partition(":")[2], str(free_port())
        http_port = str(free_port())
        command = [
            *(sys.executable, "-m", "aetheris_server", "dev"),
            *("--data-dir", os.fspath(self._data)),
            *("--port", port, "--internal-port", internal_port, "--http-port", http_port),
        ]
        self.programs = {SERVER: Program(SERVER, command, logs / "server.log")}
        for name, capabilities in WORKERS.items():
            command = [
                *(sys.executable, "-m", "examples.census.worker"),
                *("--address", self.address, "--name", name),
                *(part for capability in capabilities for part in ("--capability", capability)),
            ]
            self.programs[name] = Program(name, command, logs / f"{name}.log")

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def connect(self) -> Client:
        """A client, once the server is ready.

        Raises:
            DemoError: It ended, or was not ready in time.
        """
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT
        while asyncio.get_running_loop().time() < deadline:
            self.programs[SERVER].check_running()
            try:
                return await Client.connect(self.address, identity="census-demo")
            except UnavailableError:
                continue
        raise DemoError(f"the server was not ready within {READY_TIMEOUT:g} s")

    def check_running(self) -> None:
        """Raises DemoError if one of the programs ended by itself."""
        for program in self.programs.values():
            program.check_running()

    async def _start(self) -> None:
        await self.programs[SERVER].start()
        client = await self.connect()
        await client.close()
        for name in WORKERS:
            await self.programs[name].start()

    async def _stop(self) -> None:
        workers = [self.programs[name] for name in WORKERS]
        await asyncio.gather(*(worker.stop(WORKER_STOP_TIMEOUT) for worker in workers))
        if not await self.programs[SERVER].stop(SERVER_STOP_TIMEOUT) and self._data.exists():
            # A killed server leaves its Postgres and its Redis; who takes them over can stop them.
            async with embedded_stores(self._data):
                pass


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
