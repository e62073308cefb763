"""Server processes that may outlive the process that started them.

A server is recognised by its name and working folder, not by a pid on disk: a pid file may be stale
and its pid belong to somebody else by now.
"""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

_POLL_INTERVAL = 0.02
_KILL_TIMEOUT = 5.0


def wait_for(is_done: Callable[[], bool], timeout: float) -> bool:
    """Wait until `is_done()`; False if it was not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not is_done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    return True


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; one that has ended and was not reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find_servers(name: str, folder: Path) -> list[psutil.Process]:
    """Live processes called `name` that work in `folder` (a resolved path), oldest first."""
    found = [process for process in psutil.process_iter() if _works_in(process, name, folder)]
    return sorted(found, key=lambda process: process.create_time())


def stop_server(process: psutil.Process, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a server and wait until it is gone.

    Args:
        process: The server; may have ended already.
        signals: Each signal in turn, with the seconds to wait for its effect; SIGKILL follows.
    """
    for number, timeout in (*signals, (signal.SIGKILL, _KILL_TIMEOUT)):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            break
        # Not process.wait(): of a server that we did not start, somebody else has to collect the
        # exit status, and may take seconds to.
        if wait_for(lambda: not is_alive(process), timeout):
            break
    if isinstance(process, psutil.Popen):
        process.wait(_KILL_TIMEOUT)


def rotate_log(log: Path) -> None:
    """Put the log of the previous start aside, so that no log grows without bound."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.old"))


def _works_in(process: psutil.Process, name: str, folder: Path) -> bool:
    try:
        return process.name() == name and Path(process.cwd()) == folder and is_alive(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        # Ended while we looked, or another user's, so not ours.
        return False
