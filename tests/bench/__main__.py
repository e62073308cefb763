"""`make bench`: what the simple workflow (one activity) costs, and what runs of other shapes take.

All from separate processes. Postgres syncs every commit. The figures are for this machine, with
everything on it.
"""

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import orjson
import psycopg
from rich.console import Console
from rich.table import Table

from tests.bench.processes import Stand, run_client, running_stand
from tests.bench.shapes import measure_shapes, shapes_table

_WARM_UP_RUNS = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One load: its latencies, in seconds and sorted, and what it cost each process per run."""

    name: str
    runs: int
    seconds: float
    latencies: list[float]
    cpu_ms: dict[str, float]
    counts: dict[str, float]
    calls: dict[str, float]

    def percentile(self, share: float) -> float:
        """A latency in milliseconds."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1e3


def main() -> None:
    """Measure and print; with floors given, exit 1 where one is not met."""
    arguments = _parse_arguments()
    console = Console(width=110)
    with (
        tempfile.TemporaryDirectory(prefix="aetheris-bench-") as data_dir,
        running_stand(Path(data_dir), arguments.processes) as stand,
        psycopg.connect(stand.postgres_dsn, autocommit=True) as connection,
    ):
        _print_settings(console, connection)
        run_client(stand.address, _WARM_UP_RUNS, 16)
        samples = [
            _measure(stand, connection, "sequential", arguments.sequential_runs, 1),
            _measure(
                stand,
                connection,
                f"concurrency {arguments.concurrency}",
                arguments.runs,
                arguments.concurrency,
            ),
        ]
        _print_samples(console, samples)
        if arguments.shapes:
            shapes = measure_shapes(stand, arguments.concurrency)
            console.print(shapes_table(shapes, arguments.concurrency))
    faults = _find_faults(samples)
    for fault in faults:
        console.print(f"[red]below the floor: {fault}[/red]")
    if faults and arguments.check:
        sys.exit(1)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--sequential-runs", type=int, default=300)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1, help="of the server")
    parser.add_argument(
        "--no-shapes", dest="shapes", action="store_false", help="only the simple workflow"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where a floor is not met")
    return parser.parse_args()


def _find_faults(samples: list[Sample]) -> list[str]:
    """The floors of docs/benchmarks.md, for 2 cores with everything on them."""
    sequential, concurrent = samples
    checks = [
        (sequential.percentile(0.5) <= 12, "sequential p50 <= 12 ms"),
        (concurrent.runs / concurrent.seconds >= 200, "200 runs/s"),
        (concurrent.cpu_ms["server"] <= 3, "server CPU <= 3 ms per run"),
    ]
    return [text for is_met, text in checks if not is_met]


def _measure(
    stand: Stand, connection: psycopg.Connection, name: str, runs: int, concurrency: int
) -> Sample:
    cpu, metrics, wal = stand.cpu_seconds(), stand.metrics(), _wal_bytes(connection)
    report = orjson.loads(run_client(stand.address, runs, concurrency))
    cpu_after, metrics_after, wal_after = (
        stand.cpu_seconds(),
        stand.metrics(),
        _wal_bytes(connection),
    )
    gained = {key: value - metrics.get(key, 0.0) for key, value in metrics_after.items()}
    cpu_ms = {key: (value - cpu[key]) / runs * 1e3 for key, value in cpu_after.items()}
    cpu_ms["client"] = report["cpu_seconds"] / runs * 1e3
    return Sample(
        name=name,
        runs=runs,
        seconds=report["seconds"],
        latencies=sorted(report["latencies"]),
        cpu_ms=cpu_ms,
        counts={
            "log rows": gained["aetheris_commit_records_total"] / runs,
            "SQL statements": gained["aetheris_sql_statements_total"] / runs,
            "transactions of the write path": (
                gained['aetheris_commit_batches_total{result="committed"}'] / runs
            ),
            "WAL bytes": (wal_after - wal) / runs,
        },
        calls=_calls(gained, runs),
    )


def _calls(gained: dict[str, float], runs: int) -> dict[str, float]:
    """gRPC calls per run by method."""
    calls: dict[str, float] = {}
    for key, value in gained.items():
        if key.startswith("aetheris_grpc_calls_total{") and value:
            method = key.split('method="')[1].split('"')[0].rsplit("/", 1)[-1]
            calls[method] = calls.get(method, 0.0) + value / runs
    return calls


def _wal_bytes(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def _print_settings(console: Console, connection: psycopg.Connection) -> None:
    settings = {
        name: connection.execute(f"SHOW {name}").fetchone()[0]  # pyright: ignore[reportOptionalSubscript, reportArgumentType, reportCallIssue]
        for name in ("server_version", "synchronous_commit", "fsync", "shared_buffers")
    }
    console.print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" grpcio {version('grpcio')}, protobuf {version('protobuf')},"
        f" psycopg {version('psycopg')}, uvloop {version('uvloop')}"
    )
    console.print("Postgres: " + ", ".join(f"{key}={value}" for key, value in settings.items()))


def _print_samples(console: Console, samples: list[Sample]) -> None:
    table = Table(title="Simple workflow: start, one activity, done")
    table.add_column("figure")
    for sample in samples:
        table.add_column(f"{sample.name} ({sample.runs} runs)", justify="right")

    def row(name: str, values: list[str]) -> None:
        table.add_row(name, *values)

    row("runs/s", [f"{sample.runs / sample.seconds:.0f}" for sample in samples])
    for share in (0.5, 0.95, 0.99):
        row(f"p{share * 100:.0f} ms", [f"{sample.percentile(share):.1f}" for sample in samples])
    for name in samples[0].cpu_ms:
        row(f"CPU ms per run, {name}", [f"{sample.cpu_ms[name]:.2f}" for sample in samples])
    for name in samples[0].counts:
        row(f"{name} per run", [f"{sample.counts[name]:.2f}" for sample in samples])
    row("gRPC calls per run", [f"{sum(sample.calls.values()):.2f}" for sample in samples])
    for name in sorted({name for sample in samples for name in sample.calls}):
        row(f"  {name}", [f"{sample.calls.get(name, 0.0):.2f}" for sample in samples])
    console.print(table)


if __name__ == "__main__":
    main()
