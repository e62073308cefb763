"""The processes of a benchmark: the server, a worker, a client; and what each of them has cost."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from aetheris_server.embedded.stores import EmbeddedStores

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_ROOT = Path(__file__).parents[2]
# Of a server of several processes.
_PROCESS_LABEL = re.compile(r'process="[^"]*",?|,process="[^"]*"')


@dataclass(frozen=True, slots=True)
class Stand:
    """A running server and worker.

    Attributes:
        address: gRPC.
        http_address: Metrics.
        postgres_dsn: The server's own store.
        processes: By name: server, worker, postgres, redis; Postgres with all of its children.
    """

    address: str
    http_address: str
    postgres_dsn: str
    processes: dict[str, psutil.Process]

    def cpu_seconds(self) -> dict[str, float]:
        """What each has used since it began, in user and system time."""
        return {name: _cpu_seconds(process) for name, process in self.processes.items()}

    def metrics(self) -> dict[str, float]:
        """The server's metrics: value by name with labels, added up over its processes."""
        with urllib.request.urlopen(f"http://{self.http_address}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        values: dict[str, float] = {}
        for line in lines:
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = _PROCESS_LABEL.sub("", name).replace("{}", "")
                values[name] = values.get(name, 0.0) + float(value)
        return values


@contextmanager
def running_stand(data_dir: Path, server_processes: int = 1) -> Generator[Stand]:
    """A server whose Postgres syncs every commit, and a worker, each a process of its own.

    Args:
        data_dir: Empty.
        server_processes: The connections of the worker and of the client stay each with one
            of them.
    """
    port, http_port = _free_port(), _free_port()
    address, http_address = f"127.0.0.1:{port}", f"127.0.0.1:{http_port}"
    # Where this process is root, Postgres runs as another account, which passes through here.
    data_dir.chmod(0o711)
    with EmbeddedStores(data_dir) as stores:
        dsn = f"--postgres-dsn={stores.postgres_dsn}"
        subprocess.run(
            [sys.executable, "-m", "aetheris_server", "migrate", dsn],
            check=True,
            cwd=_ROOT,
            stdout=subprocess.DEVNULL,
            timeout=_START_TIMEOUT,
        )
        server = _start(
            "-m",
            "aetheris_server",
            "start",
            dsn,
            f"--redis-url={stores.redis_url}",
            f"--port={port}",
            f"--internal-port={_free_port() if server_processes > 1 else 0}",
            *(("--processes", str(server_processes)) if server_processes > 1 else ()),
            f"--http-port={http_port}",
            "--log-level=warning",
        )
        try:
            _wait_until_ready(server, http_address)
            worker = _start("-m", "tests.bench.worker", address)
            try:
                processes = _find(server, worker, data_dir)
                yield Stand(address, http_address, stores.postgres_dsn, processes)
            finally:
                _stop(worker)
        finally:
            if server.poll() is None:
                _stop(server)


def run_client(address: str, runs: int, concurrency: int, *options: str) -> bytes:
    """Run the client process to its end; what it printed."""
    arguments = (address, str(runs), str(concurrency), *options)
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.client", *arguments],
        check=True,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        timeout=600,
    ).stdout


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=_ROOT, stdout=subprocess.DEVNULL, env=os.environ
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT)


def _wait_until_ready(server: subprocess.Popen[bytes], http_address: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://{http_address}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the server did not become ready")


def _find(
    server: subprocess.Popen[bytes], worker: subprocess.Popen[bytes], data_dir: Path
) -> dict[str, psutil.Process]:
    found = {"server": psutil.Process(server.pid), "worker": psutil.Process(worker.pid)}
    for process in psutil.process_iter(["name", "cmdline", "ppid"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(data_dir) not in command or process.pid in (server.pid, worker.pid):
            continue
        for name in ("postgres", "redis"):
            if name in process.info["name"] and name not in found:
                found[name] = process
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    times = [process.cpu_times()]
    times += [child.cpu_times() for child in process.children(recursive=True)]
    own = times[0]
    # Postgres counts the backends that have ended as its children.
    ended = own.children_user + own.children_system if "postgres" in process.name() else 0.0
    return sum(time.user + time.system for time in times) + ended


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
