"""A server that kills itself at a chosen point, and is started again without.

    python -m tests.support.crash_server ARGUMENTS OF aetheris-server

Each line on stdin is a round: `POINT N`, for example `commit.after 2`. The server of the round
before is killed, `begun` is printed, and a new one begins that sends itself SIGKILL at the N-th
time that it comes to the point. When that has happened, `died` is printed and a server takes its
place that does no such thing.

The product knows nothing of this: the points are calls of its parts, wrapped here. Servers are
forked from a process that has imported everything, so that a start costs a fraction of a second.
"""

import os
import select
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import aetheris_server.main  # noqa: F401  # pyright: ignore[reportUnusedImport] - for all forks
from aetheris_server import cli
from aetheris_server.history import host
from aetheris_server.history import service as history
from aetheris_server.history.recovery import settling
from aetheris_server.matching.backlog import Backlog
from aetheris_server.matching.service import MatchingService
from aetheris_server.rpc import table
from aetheris_server.storage.commit import LogWriter

_CALLS: dict[str, tuple[Any, Any]] = {
    "commit": (LogWriter, "commit"),
    "add_tasks": (MatchingService, "add_tasks"),
    "push": (Backlog, "push"),
    "start_tasks": (history, "start_tasks"),
    "start_workflow": (history._handlers, table.START_WORKFLOW),
    "signal_with_start": (history._handlers, table.SIGNAL_WITH_START_WORKFLOW),
    "update_options": (history._handlers, table.UPDATE_WORKFLOW_OPTIONS),
    "update_task_queue": (MatchingService, "update_task_queue"),
    "reset_workflow": (history._handlers, table.RESET_WORKFLOW),
    "fork_workflow": (history._handlers, table.FORK_WORKFLOW),
    "complete_workflow_task": (history._handlers, table.RESPOND_WORKFLOW_TASK_COMPLETED),
    "complete_activity": (history._handlers, table.RESPOND_ACTIVITY_TASK_COMPLETED),
    "update_workflow": (history._handlers, table.UPDATE_WORKFLOW),
    "pause_workflow": (history._handlers, table.PAUSE_WORKFLOW),
    "unpause_workflow": (history._handlers, table.UNPAUSE_WORKFLOW),
    "pause_activity": (history._handlers, table.PAUSE_ACTIVITY),
    "unpause_activity": (history._handlers, table.UNPAUSE_ACTIVITY),
    "answer_calls": (history, "answer_calls"),
    "record_outcome": (host, "record_outcome"),
    "settle": (settling.shard_storage, "settle_shards"),
}

_Call = Callable[..., Awaitable[Any]]


def arm(point: str, count: int) -> None:
    """Have this process killed before or after the count-th call that a point names."""
    name, _, moment = point.partition(".")
    owner, call = _CALLS[name]
    if isinstance(owner, dict):
        owner[call] = _deadly(owner[call], moment, count)
    else:
        setattr(owner, call, _deadly(getattr(owner, call), moment, count))


def _deadly(call: _Call, moment: str, count: int) -> _Call:
    calls = 0

    def come(here: str) -> None:
        nonlocal calls
        if here == moment:
            calls += 1
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)

    @wraps(call)
    async def wrapped(*arguments: Any, **keywords: Any) -> Any:
        come("before")
        answer = await call(*arguments, **keywords)
        # Not by a call that fails: one that comes before the shards are taken is made again.
        come("after")
        return answer

    return wrapped


def _fork(point: str, count: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # What the server prints is its log; this program's own stdout is for the test.
    os.dup2(2, 1)
    if point:
        arm(point, count)
    sys.argv[0] = "aetheris-server"
    cli.main()
    os._exit(0)


def _end(pid: int) -> None:
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> None:
    """Play rounds until stdin ends."""
    # A child that ends wakes the select below.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer)
    pid, rest = 0, b""
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 64)
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended and ended == pid:
                os.write(1, b"died\n")
                pid = _fork("", 0)
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                _end(pid)
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                point, count = line.decode().split()
                _end(pid)
                os.write(1, b"begun\n")
                pid = _fork(point, int(count))


if __name__ == "__main__":
    main()
