"""What workers were answered with, until they say that it came.

A poll's answer can be lost after this host has sent it, and nothing on the way tells. A worker that
counts its polls says with each which was the last whose answer came; what it was answered with
later is given to others, and requests to cancel are told again. Bounded, memory of one host: what
is forgotten here times out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris_server.matching.polls import Poll

_TTL = 60.0
_MAX_WORKERS = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What one poll was answered with.

    Attributes:
        task_tokens: Of the tasks.
        cancellations: The requests to cancel.
    """

    poll_number: int
    task_tokens: Sequence[bytes]
    cancellations: Sequence[ActivityCancellation]
    expire_at: float


class Answered:
    """The last answer with anything in it to each worker process that counts its polls."""

    def __init__(self) -> None:
        # Answered longest ago first.
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def note(
        self,
        poll: Poll,
        task_tokens: Sequence[bytes],
        cancellations: Sequence[ActivityCancellation],
        now: float,
    ) -> None:
        """A poll that is counted is answered, maybe with nothing."""
        if not task_tokens and not cancellations:
            return
        self._answers[poll.worker_instance_id] = Answer(
            poll.number, task_tokens, cancellations, now + _TTL
        )
        self._answers.move_to_end(poll.worker_instance_id)
        if len(self._answers) > _MAX_WORKERS:
            self._answers.popitem(last=False)

    def is_outdated(self, poll: Poll) -> bool:
        """Whether a later poll of the worker was answered already."""
        answer = self._answers.get(poll.worker_instance_id)
        return answer is not None and answer.poll_number > poll.number

    def take_lost(self, worker_instance_id: str, received_number: int) -> Answer | None:
        """The answer that a worker did not get, given the last that it got; None if it got all."""
        answer = self._answers.pop(worker_instance_id, None)
        if answer is None or answer.poll_number <= received_number:
            return None
        return answer

    def forget_old(self, now: float) -> None:
        """Drop what no worker has asked about for a minute."""
        while self._answers:
            worker_instance_id, oldest = next(iter(self._answers.items()))
            if oldest.expire_at > now:
                return
            del self._answers[worker_instance_id]
