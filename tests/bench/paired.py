"""`make bench-paired BASE=folder`: this version against another one, on a noisy machine.

The servers, workers and stores of both run all the time; their clients take turns, a second or so
each. What is compared is each turn with the one beside it, so that what disturbs the machine for
longer disturbs both.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

_STAND = Path(__file__).with_name("stand.py")
_HERE = Path(__file__).parents[2]

Sample = dict[str, float]


class _Stand:
    """The stand of one version, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [folder / ".venv/bin/python", _STAND],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        """Return when it can measure."""
        for line in self._stdout():
            if line.strip() == "ready":
                return
        raise RuntimeError("a stand did not start; it has said why")

    def measure(self, runs: int, concurrency: int) -> Sample:
        """One turn."""
        assert self._process.stdin is not None
        print(runs, concurrency, file=self._process.stdin, flush=True)
        for line in self._stdout():
            return json.loads(line)
        raise RuntimeError("a stand has ended; it has said why")

    def stop(self) -> None:
        """End it, with all that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


def main() -> None:
    """Measure and print."""
    arguments = _parse_arguments()
    stands = [_Stand(arguments.base.resolve()), _Stand(_HERE)]
    console = Console(width=100)
    try:
        for stand in stands:
            stand.wait_ready()
        for name, runs, concurrency in (
            ("sequential", arguments.sequential_runs, 1),
            (f"concurrency {arguments.concurrency}", arguments.runs, arguments.concurrency),
        ):
            pairs = _take_turns(stands, arguments.turns, runs, concurrency)
            console.print(_to_table(f"{name}, {arguments.turns} turns of {runs} runs", pairs))
    finally:
        for stand in stands:
            stand.stop()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-paired", description=__doc__)
    parser.add_argument("base", type=Path, help="folder of the other version, with a .venv in it")
    parser.add_argument("--turns", type=int, default=24)
    parser.add_argument("--sequential-runs", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1200)
    parser.add_argument("--concurrency", type=int, default=64)
    return parser.parse_args()


def _take_turns(
    stands: list[_Stand], turns: int, runs: int, concurrency: int
) -> list[tuple[Sample, Sample]]:
    """The samples of both versions; who begins changes with each turn."""
    pairs: list[tuple[Sample, Sample]] = []
    base, this = stands
    for turn in range(turns):
        if turn % 2:
            sample = this.measure(runs, concurrency)
            pairs.append((base.measure(runs, concurrency), sample))
        else:
            sample = base.measure(runs, concurrency)
            pairs.append((sample, this.measure(runs, concurrency)))
    return pairs


def _to_table(title: str, pairs: list[tuple[Sample, Sample]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("median", "base", "this", "ratio", "its middle half"):
        table.add_column(name, justify="left" if name == "median" else "right")
    for figure in pairs[0][0]:
        values = [(base[figure], this[figure]) for base, this in pairs]
        ratios = [this / base for base, this in values if base]
        if len(ratios) < 2:
            continue
        low, _, high = statistics.quantiles(ratios, n=4)
        table.add_row(
            figure,
            *(f"{statistics.median(side):.3g}" for side in zip(*values, strict=True)),
            f"{statistics.median(ratios):.3f}",
            f"{low:.3f} – {high:.3f}",
        )
    return table


if __name__ == "__main__":
    main()
