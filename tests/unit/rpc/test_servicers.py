import asyncio
from typing import Any, cast

import pytest

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import NotReadyError
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.servicers import internal_services
from tests.support.fake_history import FakeHistory
from tests.support.peers import FakeMatching
from tests.support.secrets import CREDENTIALS, TOKENS

NO_CONTEXT = cast(Any, None)


def a_poll() -> matching_service_pb2.PollActivityTasksRequest:
    poll = matching_service_pb2.PollActivityTasksRequest(namespace_id="n")
    poll.request.poll_timeout.FromMilliseconds(50)
    return poll


async def test_poll_that_matching_does_not_answer_ends_behind_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aetheris_server.rpc.table._WAIT_SLACK", 0.05)
    history = FakeHistory()
    _, matching = internal_services(
        history.serve(), FakeMatching().serve(), DrainGate(), history, TOKENS, CREDENTIALS
    )
    with pytest.raises(NotReadyError):
        async with asyncio.timeout(5):
            await matching.handlers["PollActivityTasks"](a_poll(), NO_CONTEXT)
