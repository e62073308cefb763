import threading
from collections.abc import Iterator

import pytest

from aetheris_worker.workflow_tasks.threads import NAME
from tests.unit.worker.driver import evict_all


@pytest.fixture(autouse=True)
def evicted_machines() -> Iterator[None]:
    yield
    evict_all()


@pytest.fixture(autouse=True)
def ended_threads() -> Iterator[None]:
    """What a thread says that comes back late is not the next test's."""
    yield
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(20)
            assert not thread.is_alive()
