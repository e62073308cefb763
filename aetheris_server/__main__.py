"""`aetheris-server`, also as `python -m aetheris_server`."""

import os
import sys

# gRPC then reads sockets on the thread that takes its events, not on a pool of others: a tenth of
# the server's CPU and a twentieth of the time of a run that is alone (docs/benchmarks.md). It is
# read when gRPC is imported.
_GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"


def main() -> None:
    """Run the command; where the `server` extra is missing, say so in a line."""
    os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
    try:
        from aetheris_server.cli import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aetheris"):
            raise
        print(
            f"aetheris-server needs {error.name}, which is not installed;"
            " install it with: pip install 'aetheris-workflow[server]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        # The imports take a moment in which nobody else takes Ctrl-C.
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
