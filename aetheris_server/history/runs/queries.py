"""Having questions to a run's code asked by themselves, by whichever worker of the run is free."""

from aetheris_server.clock import Clock
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.runs.run import LoadedRun, WaitingQuery
from aetheris_server.history.state.machines.workflow_task.tasks import workflow_ref
from aetheris_server.history.times import to_timestamp


class QueryOffers:
    """Offers the queries of one host's runs to matching."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock

    def offer(self, run: LoadedRun, waiting: WaitingQuery) -> None:
        """Have a query asked by itself."""
        ref = workflow_ref(run.state, run.inflight)
        ref.query_id = waiting.query_id
        ref.scheduled_time.CopyFrom(to_timestamp(self._clock.now()))
        ref.expire_time.CopyFrom(to_timestamp(waiting.expire_time))
        self._dispatcher.offer([ref])

    def offer_all(self, run: LoadedRun) -> None:
        """Have all queries of a run that wait for an answer asked by themselves."""
        for waiting in run.queries.values():
            if not waiting.answer.done():
                self.offer(run, waiting)
