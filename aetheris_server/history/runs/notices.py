"""Telling workers at once, through their polls, that activities they run should stop: they are
asked to cancel, or were paused or reset.

Best effort: a notice that is lost is made good by the worker's next heartbeat.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from aetheris.api.v1 import task_queue_pb2, worker_service_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import UnavailableError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.machines.activity.values import StartedActivity
from aetheris_server.loops import is_cancelled
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.rpc.table import NOTIFY_CANCELLATION
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_WAITING = gauge("cancellation_notices_waiting", "Cancellation notices that wait to be sent.")
_DROPPED = counter(
    "dropped_cancellation_notices", "Cancellation notices that found no room; heartbeats tell."
)

_MAX_WAITING = 10_000
_SEND_TIMEOUT = 5.0

Reason = worker_service_pb2.ActivityCancellationReason.ValueType
Notice = matching_service_pb2.NotifyCancellationRequest

LocateQueue = Callable[[str, str, task_queue_pb2.TaskQueueType.ValueType], str | None]
"""The address of the host of (namespace_id, task queue, type); None is this one."""


def _here(*_: object) -> None:
    """Every queue is at this host."""


class CancellationNotices:
    """Sends notices in the background, those for one host in order; drops them when too many wait.

    A host that is dead or slow holds up its own alone.
    """

    def __init__(self, matching: MatchingPeer, locate: LocateQueue = _here) -> None:
        self._matching = matching
        self._locate = locate
        self._lanes: dict[str | None, deque[Notice]] = {}
        self._sending: set[str | None] = set()
        self._wake = asyncio.Event()
        _WAITING.set_function(lambda: sum(map(len, self._lanes.values())))

    def of_all(self, run: LoadedRun) -> list[Notice]:
        """The notices for every activity of a run that a worker has now."""
        return self.of(run, run.inflight.activities)

    def of(
        self,
        run: LoadedRun,
        scheduled_event_ids: Iterable[int],
        reason: Reason = worker_service_pb2.ACTIVITY_CANCELLATION_REASON_REQUESTED,
    ) -> list[Notice]:
        """The notices for those of the activities that a worker has now."""
        return [
            _to_notice(run, run.inflight.activities[event_id], reason)
            for event_id in scheduled_event_ids
            if event_id in run.inflight.activities
        ]

    def send(self, notices: Iterable[Notice]) -> None:
        """Send soon; what they are about is on disk."""
        for notice in notices:
            address = self._locate(
                notice.namespace_id, notice.task_queue, task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY
            )
            lane = self._lanes.setdefault(address, deque())
            if len(lane) >= _MAX_WAITING:
                _DROPPED.inc()
                continue
            lane.append(notice)
            self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            while not is_cancelled():
                await self._wake.wait()
                self._wake.clear()
                for address in self._lanes.keys() - self._sending:
                    self._sending.add(address)
                    lanes.create_task(self._send_to(address))

    async def _send_to(self, address: str | None) -> None:
        lane = self._lanes[address]
        while lane and not is_cancelled():
            await self._send(lane.popleft())
        del self._lanes[address]
        self._sending.discard(address)

    async def _send(self, notice: Notice) -> None:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT):
                await self._matching.call(NOTIFY_CANCELLATION, notice)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("a cancellation notice was lost", error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # Matching's fault, maybe on another host, must not end this one.
            _log.exception("a cancellation notice was lost")


def _to_notice(run: LoadedRun, started: StartedActivity, reason: Reason) -> Notice:
    notice = Notice(
        namespace_id=run.key.namespace_id,
        task_queue=started.task_queue,
        worker_instance_id=started.taker.worker_instance_id,
    )
    cancellation = notice.cancellation
    cancellation.workflow_execution.workflow_id = run.key.workflow_id
    cancellation.workflow_execution.run_id = run.key.run_id
    cancellation.activity_id = run.state.activities[
        started.scheduled_event_id
    ].scheduled.activity_id
    cancellation.scheduled_event_id = started.scheduled_event_id
    cancellation.attempt = started.attempt
    cancellation.reason = reason
    return notice
