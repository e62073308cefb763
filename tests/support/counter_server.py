"""A server that knows counters as well.

    python -m tests.support.counter_server ARGUMENTS OF aetheris-server

With COUNTER_SERVER_DIES set to `POINT N`, it kills itself the N-th time that it comes to a point of
`crash_server`.
"""

import os
import sys

from aetheris_server import cli
from aetheris_server.history.kinds import KINDS
from tests.support.counter import COUNTER
from tests.support.crash_server import arm


def main() -> None:
    """As `aetheris-server`."""
    KINDS.use((*KINDS.all(), COUNTER))
    if point := os.environ.get("COUNTER_SERVER_DIES"):
        name, count = point.split()
        arm(name, int(count))
    sys.argv[0] = "aetheris-server"
    cli.main()


if __name__ == "__main__":
    main()
