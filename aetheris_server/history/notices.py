"""Telling workers at once, through their polls, that activities they run should cancel.

Best effort: a notice that is lost is made good by the worker's next heartbeat.
"""

import asyncio
from collections.abc import Iterable

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import UnavailableError
from aetheris_server.history.run import LoadedRun
from aetheris_server.history.state.inflight import StartedActivity
from aetheris_server.loops import is_cancelled
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_MAX_WAITING = 10_000
_SEND_TIMEOUT = 5.0

Notice = matching_service_pb2.NotifyCancellationRequest


class CancellationNotices:
    """Sends notices in the background, in order; drops them when too many wait."""

    def __init__(self, matching: MatchingPeer) -> None:
        self._matching = matching
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(_MAX_WAITING)

    def of_all(self, run: LoadedRun) -> list[Notice]:
        """The notices for every activity of a run that a worker has now."""
        return self.of(run, run.inflight.activities)

    def of(self, run: LoadedRun, scheduled_event_ids: Iterable[int]) -> list[Notice]:
        """The notices for those of the activities that a worker has now."""
        return [
            _to_notice(run, run.inflight.activities[event_id])
            for event_id in scheduled_event_ids
            if event_id in run.inflight.activities
        ]

    def send(self, notices: Iterable[Notice]) -> None:
        """Send soon; what they are about is on disk."""
        for notice in notices:
            if self._queue.full():
                _log.warning("too many cancellation notices wait; heartbeats will tell")
                return
            self._queue.put_nowait(notice)

    async def run(self) -> None:
        """Send until cancelled."""
        while not is_cancelled():
            notice = await self._queue.get()
            try:
                async with asyncio.timeout(_SEND_TIMEOUT):
                    await self._matching.notify_cancellation(notice)
            except (UnavailableError, TimeoutError) as error:
                _log.warning("a cancellation notice was lost", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                # Matching's fault, maybe on another host, must not end this one.
                _log.exception("a cancellation notice was lost")


def _to_notice(run: LoadedRun, started: StartedActivity) -> Notice:
    notice = Notice(
        namespace_id=run.key.namespace_id,
        task_queue=started.task_queue,
        worker_instance_id=started.poller.worker_instance_id,
    )
    cancellation = notice.cancellation
    cancellation.workflow_execution.workflow_id = run.key.workflow_id
    cancellation.workflow_execution.run_id = run.key.run_id
    cancellation.activity_id = run.state.activities[
        started.scheduled_event_id
    ].scheduled.activity_id
    cancellation.scheduled_event_id = started.scheduled_event_id
    cancellation.attempt = started.attempt
    return notice
