"""What is wrong after the faults: the log against the book, the effects, what the processes do."""

import asyncio
from collections import Counter
from pathlib import Path

import psutil

from aetheris.api.v1.history_pb2 import EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
from tests.fault.chaos.cluster import Cluster
from tests.fault.chaos.load import Book
from tests.support.log_audit import AuditedRun, audit_log
from tests.support.processes import ChildProcess, Stopwatch
from tests.support.projection_audit import audit_projections

_IDLE_SHARE = 0.15
_TERM_SECONDS = 10.0


async def audit(cluster: Cluster, book: Book, idle_seconds: float) -> list[str]:
    """Look at a cluster whose load has ended, end its servers, and say what is wrong.

    Args:
        cluster: Nothing else happens to it.
        book: What the clients were told.
        idle_seconds: How long its processes are watched doing nothing.
    """
    faults = [f"{name} has ended: {process.output[-2000:]}" for name, process in _ended(cluster)]
    faults += await asyncio.to_thread(check_log, cluster.dsn, book)
    faults += check_effects(cluster.effects)
    if not faults:
        faults += await _check_idle(cluster, idle_seconds)
        faults += await _check_end(cluster)
    return faults


def _processes(cluster: Cluster) -> list[tuple[str, ChildProcess]]:
    return [
        *((f"server {number}", server) for number, server in enumerate(cluster.servers)),
        *((f"worker {number}", worker) for number, worker in enumerate(cluster.workers)),
    ]


def _ended(cluster: Cluster) -> list[tuple[str, ChildProcess]]:
    return [(name, process) for name, process in _processes(cluster) if not process.is_running]


def check_log(dsn: str, book: Book) -> list[str]:
    """Every acknowledged run is there and closed, and has each acknowledged signal once."""
    try:
        audited = audit_log(dsn)
        audit_projections(dsn)
    except AssertionError as error:
        return [f"the log is not whole, or not what is said of it: {error}"]
    faults = [f"run {run_id} is gone" for run_id in book.runs if run_id not in audited]
    faults += [f"run {run_id} is open" for run_id, run in audited.items() if run.state.is_open]
    return faults + [
        f"run {run_id}: {count} signals acknowledged, {found} in its log"
        for run_id, count in book.signal_counts.items()
        if run_id in audited and (found := _signal_count(audited[run_id])) != count
    ]


def _signal_count(run: AuditedRun) -> int:
    types = [event.event_type for event in run.events]
    return types.count(EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)


def check_effects(effects: Path) -> list[str]:
    """What at-most-once activities have done, they have done once."""
    counts = Counter(effects.read_text().split())
    return [f"effect {key} was had {count} times" for key, count in counts.items() if count > 1]


async def _check_idle(cluster: Cluster, seconds: float) -> list[str]:
    before = _cpu_seconds(cluster)
    await asyncio.sleep(seconds)
    after = _cpu_seconds(cluster)
    shares = {name: (after[name] - before[name]) / seconds for name in before}
    return [
        f"{name} takes {share:.0%} of a core with nothing to do"
        for name, share in shares.items()
        if share > _IDLE_SHARE
    ]


def _cpu_seconds(cluster: Cluster) -> dict[str, float]:
    times = {name: psutil.Process(process.pid).cpu_times() for name, process in _processes(cluster)}
    return {name: each.user + each.system for name, each in times.items()}


async def _check_end(cluster: Cluster) -> list[str]:
    faults: list[str] = []
    for name, process in reversed(_processes(cluster)):
        watch = Stopwatch()
        code = await process.terminate()
        if code != 0 or watch.seconds > _TERM_SECONDS:
            faults.append(f"{name}: SIGTERM took {watch.seconds:.1f} s and ended with {code}")
    return faults
