"""What the hot path makes is freed as soon as it is done with: nothing refers to itself."""

from tests.support.clock import ManualClock
from tests.support.garbage import garbage_of
from tests.support.memory_engine import MemoryEngine


def test_transition_leaves_no_garbage() -> None:
    bench = MemoryEngine(ManualClock())
    key = bench.start("run")
    assert not garbage_of(lambda: bench.signal(key))
