"""A server of several processes, as it is seen from outside."""

import re
from collections.abc import Mapping

import psutil

from tests.support.http_requests import get
from tests.support.processes import ServerProcess
from tests.support.wait import wait_until

_STARTED = re.compile(r"a process was started .*number=(\d+) pid=(\d+)")
_SERIES = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_PROCESS = re.compile(r'process="(\d+)"')
_READY_TIMEOUT = 60.0


def pids_of(server: ServerProcess) -> dict[int, int]:
    """The process ids that the processes had last, by their numbers."""
    return {int(number): int(pid) for number, pid in _STARTED.findall(server.output)}


async def wait_ready(server: ServerProcess, count: int) -> None:
    """Until so many processes are ready: all of them."""
    address = await server.wait_http()

    async def is_ready() -> bool:
        return f"{count} of {count} processes are ready" in await get(address, "/readyz")

    await wait_until(is_ready, _READY_TIMEOUT, f"{count} processes to be ready")


async def kill_process(server: ServerProcess, number: int) -> None:
    """SIGKILL to one; returns when its next life is ready, and all others are."""
    count, killed = len(pids_of(server)), pids_of(server)[number]
    psutil.Process(killed).kill()
    await wait_until(lambda: pids_of(server)[number] != killed, _READY_TIMEOUT, "the next life")
    await wait_ready(server, count)


async def sum_by_process(address: tuple[str, int], name: str) -> Mapping[int, float]:
    """A metric of each process, all of its other labels added up."""
    sums: dict[int, float] = {}
    for found, labels, value in _SERIES.findall(await get(address, "/metrics")):
        if found == name and (process := _PROCESS.search(labels)) is not None:
            number = int(process[1])
            sums[number] = sums.get(number, 0.0) + float(value)
    return sums


async def wait_gone(pids: Mapping[int, int], timeout: float) -> None:
    """Until none of these processes is there."""

    def are_gone() -> bool:
        return not any(psutil.pid_exists(pid) for pid in pids.values())

    await wait_until(are_gone, timeout, "the processes to be gone")


async def wait_output(server: ServerProcess, text: str, count: int = 1) -> None:
    """Until a server has said something so many times."""
    await wait_until(lambda: server.output.count(text) >= count, 60.0, text)
