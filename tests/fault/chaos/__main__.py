"""`make chaos`: faults of all kinds for a while, from a seed; exits 1 if anything was wrong."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.fault.chaos.faults import Faults
from tests.fault.chaos.runner import Plan, run_chaos
from tests.support.processes import Stopwatch


def main() -> None:
    """Run, and print what was wrong and how to repeat it."""
    arguments = _parse_arguments()
    console, watch = Console(width=110), Stopwatch()
    repeat = (
        f"make chaos SEED={arguments.seed} SECONDS={arguments.seconds:g}"
        f" SHARDS={arguments.shards} CACHE={arguments.cache}"
    )
    console.print(repeat)
    plan = Plan(
        seed=arguments.seed,
        seconds=arguments.seconds,
        shard_count=arguments.shards,
        cache=arguments.cache,
        faults=arguments.faults or Faults.names(),
    )
    with tempfile.TemporaryDirectory(prefix="aetheris-chaos-") as name:
        # Where this process is root, Postgres runs as another account, which passes through here.
        Path(name).chmod(0o711)
        book = asyncio.run(
            run_chaos(
                Path(name), plan, lambda text: console.print(f"{watch.seconds:6.1f} s  {text}")
            )
        )
    console.print(f"done: {dict(book.done)}")
    console.print(f"repeated for: {dict(book.errors)}")
    for fault in book.faults:
        console.print(fault, style="red", markup=False)
    console.print(f"{len(book.faults)} faults found; to repeat: {repeat}")
    sys.exit(bool(book.faults))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.fault.chaos", description=__doc__)
    parser.add_argument("--seed", type=_seed, default="", help="a new one if empty")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--cache", type=int, default=0, help="runs in memory; 0: the default")
    parser.add_argument("--faults", nargs="*", choices=Faults.names())
    return parser.parse_args()


def _seed(text: str) -> int:
    return int(text) if text else secrets.randbelow(1_000_000)


if __name__ == "__main__":
    main()
