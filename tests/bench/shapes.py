"""What runs of several shapes take, and how many go at once: the second table of `make bench`."""

from dataclasses import dataclass

import orjson
from rich.table import Table

from tests.bench.processes import Stand, run_client


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of run.

    Attributes:
        name: For people.
        argument: For the client process.
        steps: Activities of a run, or children.
        sequential_runs: That are measured one after the other.
        runs: That are measured at once.
    """

    name: str
    argument: str
    steps: int
    sequential_runs: int
    runs: int


SHAPES = (
    Shape("no step", "steps:0", 0, 200, 3000),
    Shape("1 step", "steps:1", 1, 200, 2000),
    Shape("3 steps", "steps:3", 3, 100, 1000),
    Shape("10 steps", "steps:10", 10, 50, 400),
    Shape("1 local step", "local:1", 1, 200, 2000),
    Shape("3 local steps", "local:3", 3, 100, 1000),
    Shape("10 local steps", "local:10", 10, 50, 400),
    Shape("fan-out of 100", "fanout:100", 100, 30, 60),
    Shape("100 children", "children:100", 100, 20, 20),
)


@dataclass(frozen=True, slots=True)
class ShapeSample:
    """What one shape took.

    Attributes:
        latencies: Of runs one after the other, in seconds, sorted.
        runs_per_second: Of runs at once.
        server_ms: The server's CPU time per run of those at once, in milliseconds.
    """

    shape: Shape
    latencies: list[float]
    runs_per_second: float
    server_ms: float

    def percentile_ms(self, share: float) -> float:
        """A latency in milliseconds."""
        return self.latencies[int((len(self.latencies) - 1) * share)] * 1e3


def measure_shapes(stand: Stand, concurrency: int) -> list[ShapeSample]:
    """Run all shapes, first one run after the other, then as many at once as are given."""
    return [_measure(stand, shape, concurrency) for shape in SHAPES]


def _measure(stand: Stand, shape: Shape, concurrency: int) -> ShapeSample:
    one_by_one = orjson.loads(run_client(stand.address, shape.sequential_runs, 1, shape.argument))
    before = stand.cpu_seconds()["server"]
    at_once = orjson.loads(run_client(stand.address, shape.runs, concurrency, shape.argument))
    server_seconds = stand.cpu_seconds()["server"] - before
    return ShapeSample(
        shape=shape,
        latencies=sorted(one_by_one["latencies"]),
        runs_per_second=shape.runs / at_once["seconds"],
        server_ms=server_seconds / shape.runs * 1e3,
    )


def shapes_table(samples: list[ShapeSample], concurrency: int) -> Table:
    """The samples, a row each."""
    table = Table(title=f"By shape: one run after the other, and {concurrency} at once")
    for column in ("shape", "p50 ms", "p95 ms", "runs/s", "steps/s", "server CPU ms per run"):
        table.add_column(column, justify="left" if column == "shape" else "right")
    for sample in samples:
        table.add_row(
            sample.shape.name,
            f"{sample.percentile_ms(0.5):.1f}",
            f"{sample.percentile_ms(0.95):.1f}",
            f"{sample.runs_per_second:.0f}",
            f"{sample.runs_per_second * sample.shape.steps:.0f}" if sample.shape.steps else "–",
            f"{sample.server_ms:.2f}",
        )
    return table
