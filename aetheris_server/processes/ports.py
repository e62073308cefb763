"""The ports of several processes: the public one, which they share, and an internal one each."""

import errno
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from aetheris_server.config import MAX_PORT, ConfigError, GrpcSettings, Settings, internal_port

# The resolver may name addresses that this machine does not have: ::1 for localhost, without IPv6.
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def settings_by_process(settings: Settings, public_port: int) -> Sequence[Settings]:
    """The settings of each of the n >= 1 processes, in order.

    The i-th (from 0) has the internal port, and the advertised one, i after those that are set;
    where the system is to pick the internal port it does so for each. None serves HTTP.

    Raises:
        ConfigError: There are not that many ports behind the first, or one of them is that of gRPC
            or HTTP at the same address.
    """
    first = internal_port(settings.internal, settings.grpc)
    grpc = settings.grpc.model_copy(update={"port": public_port})
    http = settings.http.model_copy(update={"port": None})
    made: list[Settings] = []
    for index in range(settings.processes):
        port = _shift("internal.port", first, index) if first else 0
        _check_apart(settings, port, public_port)
        address = settings.internal.advertised_address
        internal = {"port": port, "advertised_address": address and _shift_address(address, index)}
        section = settings.internal.model_copy(update=internal)
        made.append(settings.model_copy(update={"grpc": grpc, "http": http, "internal": section}))
    return made


def _check_apart(settings: Settings, port: int, public_port: int) -> None:
    """One that starts later than the others would find its port taken when they serve already."""
    others = {
        "grpc.port": (settings.grpc.host, public_port),
        "http.port": (settings.http.host, settings.http.port),
    }
    for key, address in others.items():
        if port and address == (settings.internal.host, port):
            raise ConfigError(
                "internal.port",
                f"expected {settings.processes} ports in a row, one for each process, found {port}"
                f" among them, which is {key}; --internal-port names another first one",
            )


def _shift_address(address: str, index: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{_shift('internal.advertised_address', int(port), index)}"


def _shift(key: str, port: int, index: int) -> int:
    if port + index > MAX_PORT:
        raise ConfigError(
            key,
            f"expected a port for each process, found {port}, which has only"
            f" {MAX_PORT - port} after it",
        )
    return port + index


@contextmanager
def reserved_port(settings: GrpcSettings) -> Generator[int]:
    """Have the public port for the processes of this server alone until the block is left; yields
    the port.

    Nobody is answered there: the sockets are bound and do not listen. While they are open, this
    account's processes may listen there if they share the port (SO_REUSEPORT); whoever does not
    share it, or comes to reserve it too, is refused, also while no process is alive.

    Raises:
        ConfigError: The address cannot be bound, or this system cannot share ports.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("processes", "expected 1: processes cannot share a port on this system")
    reserved: list[socket.socket] = []
    try:
        yield _reserve(settings.host, settings.port, reserved)
    finally:
        for each in reserved:
            each.close()


def _reserve(host: str, port: int, reserved: list[socket.socket]) -> int:
    """Reserve a port at every address of a host."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing: OSError | None = None
        for family, _, _, _, (address, _, *rest) in dict.fromkeys(found):
            picked = reserved[0].getsockname()[1] if reserved else port
            try:
                reserved.append(_bind(family, (address, picked, *rest)))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
        if not reserved and missing is not None:
            raise missing
    except OSError as error:
        raise ConfigError(
            "grpc.port",
            f"{host}:{port} cannot be bound: {error.strerror or error};"
            " --port and --host name another address",
        ) from error
    return reserved[0].getsockname()[1]


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            # As gRPC does: the IPv4 addresses are somebody else's only if they are asked for.
            with suppress(OSError):
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Connections of a server that has ended, which linger a minute, do not hold the port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Not shared yet, so that whoever listens there is found.
        bound.bind(address)
        # From here on shared with the processes, and with nobody who binds as the line above.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        bound.close()
        raise
    return bound
