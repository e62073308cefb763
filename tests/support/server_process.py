"""A server, and what works beside it, as processes of their own: what end-to-end tests talk to."""

import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_STOP_TIMEOUT = 20.0
_ADDRESS = re.compile(r"gRPC\s+(\S+:\d+)")


@contextmanager
def running_server(postgres_dsn: str, redis_url: str, timeout: float = 60.0) -> Generator[str]:
    """A server on migrated stores; gives its address once it takes calls, and stops it after."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "aetheris_server", "start", "--port=0", "--http-port=-1"),
            *(f"--postgres-dsn={postgres_dsn}", f"--redis-url={redis_url}"),
        ],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _read_address(process, timeout)
    finally:
        stop(process)


@contextmanager
def running_module(module: str, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """`python -m module arguments`, for example a worker, until the block is left."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=_ROOT)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process as an operator would; kill it if it takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT)
    if process.stdout is not None:
        process.stdout.close()


def _read_address(process: subprocess.Popen[str], timeout: float) -> str:
    # A blocked read has no deadline of its own: ending the process ends it.
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := _ADDRESS.search(line):
                return found.group(1)
    finally:
        watchdog.cancel()
    raise AssertionError(f"the server ended, or was not ready within {timeout} s")
