"""What a server costs that has run for a while: `python -m tests.bench.endurance`.

Simple workflows one after another, in stages, tell whether a run costs more the more there were
before it; parked ones tell what it costs to do nothing; then the server is told to stop. CPU and
not the clock is what counts here: others may be using the machine.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import orjson
from rich.console import Console

from tests.bench.processes import Stand, run_client, running_stand

_WARM_UP_RUNS = 200
_CONCURRENCY = 64
_SETTLE_SECONDS = 20.0


def main() -> None:
    """Measure and print; exit 1 where a floor is not met."""
    arguments = _parse_arguments()
    console = Console(width=110)
    faults: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="aetheris-endurance-") as data_dir,
        running_stand(Path(data_dir)) as stand,
    ):
        run_client(stand.address, _WARM_UP_RUNS, 16)
        costs = [
            _measure_stage(console, stand, arguments.stage_runs) for _ in range(arguments.stages)
        ]
        if costs and costs[-1] > costs[0] / 0.95:
            faults.append(f"a run costs {costs[-1]:.2f} ms in the end, {costs[0]:.2f} at first")
        if arguments.parked:
            run_client(stand.address, arguments.parked, _CONCURRENCY, "parked")
        idle = _measure_idle(console, stand, arguments.idle_seconds)
        if idle > 1.0:
            faults.append(f"the idle server takes {idle:.2f} % of a core")
        seconds = _measure_stop(console, stand)
        if seconds > 3.0:
            faults.append(f"the server took {seconds:.1f} s to stop")
    for fault in faults:
        console.print(f"[red]{fault}[/red]")
    sys.exit(bool(faults))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.endurance", description=__doc__)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--stage-runs", type=int, default=10_000)
    parser.add_argument("--parked", type=int, default=20_000)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    return parser.parse_args()


def _measure_stage(console: Console, stand: Stand, runs: int) -> float:
    """Milliseconds of the server's CPU per run."""
    before = stand.cpu_seconds()
    report = orjson.loads(run_client(stand.address, runs, _CONCURRENCY))
    cost = {
        name: (seconds - before[name]) / runs * 1e3 for name, seconds in stand.cpu_seconds().items()
    }
    figures = ", ".join(f"{name} {value:.2f}" for name, value in cost.items())
    console.print(f"{runs} runs, {runs / report['seconds']:.0f}/s; CPU ms per run: {figures}")
    return cost["server"]


def _measure_idle(console: Console, stand: Stand, seconds: float) -> float:
    """Percent of a core that the server takes while nothing happens."""
    time.sleep(_SETTLE_SECONDS)
    before, start = stand.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    idle = {
        name: (value - before[name]) / elapsed * 100 for name, value in stand.cpu_seconds().items()
    }
    metrics = stand.metrics()
    figures = ", ".join(f"{name} {value:.2f} %" for name, value in idle.items())
    console.print(f"idle with {metrics['aetheris_loaded_runs']:.0f} runs in memory: {figures}")
    return idle["server"]


def _measure_stop(console: Console, stand: Stand) -> float:
    """Seconds from SIGTERM until the server is gone."""
    server = stand.processes["server"]
    start = time.monotonic()
    server.terminate()
    server.wait(60)
    seconds = time.monotonic() - start
    console.print(f"stopped in {seconds:.2f} s")
    return seconds


if __name__ == "__main__":
    main()
