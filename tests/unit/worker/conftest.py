from collections.abc import Iterator

import pytest

from tests.unit.worker.driver import evict_all


@pytest.fixture(autouse=True)
def evicted_machines() -> Iterator[None]:
    yield
    evict_all()
