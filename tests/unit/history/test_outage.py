"""An outage of the store fails every shard and adds it again: each at the cost of what it has."""

from aetheris_server.history.aggregates.transition import Ticket
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.executions import NewestRun
from tests.support.clock import ManualClock
from tests.support.engines import build_runs
from tests.support.runs import BEGIN, RunDriver
from tests.support.steps import count_steps

_RUNS = 500
_NEWEST = NewestRun("run", 1, "request", "run", BEGIN, None)


def _engine(clock: ManualClock, shard_count: int) -> Engine:
    runs = build_runs(clock, shard_count=shard_count, cache_max_count=10_000)
    engine = runs.engine
    for shard_id in range(shard_count):
        engine.add_shard(Shard(shard_id, range_id=1, next_seq=1, watermark=0))
    for number in range(_RUNS):
        shard_id = number % shard_count
        key = RunKey("namespace", f"workflow-{number}", f"run-{number}")
        engine.cache.put(_loaded(shard_id, key))
        runs._newest.put((shard_id, key.namespace_id, key.workflow_id), _NEWEST)
    return engine


def _loaded(shard_id: int, key: RunKey) -> LoadedRun:
    state = RunDriver().state
    state.key = key
    run = LoadedRun(shard_id, state)
    run.last_ticket = Ticket()
    return run


def _fail_and_add_all(engine: Engine, shard_count: int) -> None:
    for shard_id in range(shard_count):
        engine._table.fail(shard_id, 1, is_lost=False)
    for shard_id in range(shard_count):
        engine.add_shard(Shard(shard_id, range_id=3, next_seq=3, watermark=0))


def test_outage_costs_each_shard_what_it_has_in_memory(clock: ManualClock) -> None:
    few, many = (_engine(clock, count) for count in (4, 400))
    of_few = count_steps(lambda: _fail_and_add_all(few, 4))
    of_many = count_steps(lambda: _fail_and_add_all(many, 400))
    # The same runs in a hundred times the shards: only what a shard costs by itself is added.
    assert of_many - of_few < 500 * 400
    assert len(few.cache) == len(many.cache) == 0


def test_release_of_a_shard_touches_no_run_of_another(clock: ManualClock) -> None:
    engine = _engine(clock, 100)
    steps = count_steps(lambda: engine.release_shard(7))
    assert steps < 200 * _RUNS // 100 + 500
    assert len(engine.cache) == _RUNS - _RUNS // 100
    assert {run.shard_id for run in engine.cache} == set(range(100)) - {7}
