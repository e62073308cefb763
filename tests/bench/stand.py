"""A stand that measures what it is told to: one half of `tests.bench.paired`.

`python tests/bench/stand.py`, in the folder of any version that has `tests/bench/processes.py`: it
prints `ready`, and then, for each line `RUNS CONCURRENCY` on stdin, one line of JSON: figures by
name, times in milliseconds, CPU in milliseconds per run by process.
"""

import json
import sys
import tempfile
from pathlib import Path

# This file may be of another version than the folder that it runs in, which is the one measured.
sys.path[0] = str(Path.cwd())

from tests.bench.processes import Stand, run_client, running_stand  # noqa: E402

_WARM_UP_RUNS = 300


def main() -> None:
    """Serve until stdin ends."""
    with (
        tempfile.TemporaryDirectory(prefix="aetheris-bench-") as data_dir,
        running_stand(Path(data_dir)) as stand,
    ):
        run_client(stand.address, _WARM_UP_RUNS, 16)
        _say("ready")
        for line in sys.stdin:
            runs, concurrency = map(int, line.split())
            _say(json.dumps(_measure(stand, runs, concurrency)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _measure(stand: Stand, runs: int, concurrency: int) -> dict[str, float]:
    before = stand.cpu_seconds()
    report = json.loads(run_client(stand.address, runs, concurrency))
    after = stand.cpu_seconds()
    latencies = sorted(report["latencies"])
    cpu = {name: after[name] - before[name] for name in after} | {"client": report["cpu_seconds"]}
    percentiles = {share: latencies[len(latencies) * share // 100] for share in (50, 95, 99)}
    return {
        "runs/s": runs / report["seconds"],
        **{f"p{share} ms": seconds * 1e3 for share, seconds in percentiles.items()},
        **{f"CPU ms per run, {name}": seconds / runs * 1e3 for name, seconds in cpu.items()},
    }


if __name__ == "__main__":
    main()
