"""What a value of the settings may be, and the error for one that is not."""

import ipaddress
import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
)

ENV_PREFIX = "AETHERIS_"
ENV_DELIMITER = "__"
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
MAX_PORT = 65535
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(Exception):
    """A setting is unknown, badly formed or missing: the operator's mistake, never the program's.

    Attributes:
        key: The dotted key (`grpc.port`), the variable, or the file at fault.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


def _parse_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        return value
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _parse_port(value: object) -> object:
    # YAML reads `off` as False, which equals 0, the port that lets the system choose.
    return None if value is False or value in (-1, "-1", "off") else value


def _check_redis_url(value: str) -> str:
    # Not quoted in the message: it may carry a password.
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("expected a URL that begins with redis://, rediss:// or unix://")
    return value


def _check_host(value: str) -> str:
    """A host without the brackets that IPv6 has in a URL."""
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if (":" in host or host != value) and not _is_ipv6(host):
        raise ValueError("expected a name or an address, without a port")
    if not host or re.search(r"[\s/\[\]]", host):
        raise ValueError("expected a name or an address")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= MAX_PORT:
        raise ValueError("expected host:port")
    if _is_ipv6(host):
        raise ValueError("expected host:port, an address of IPv6 in brackets")
    try:
        host = _check_host(host)
    except ValueError:
        raise ValueError("expected host:port") from None
    if host in _ANY_ADDRESS:
        raise ValueError("expected host:port that others can reach")
    return value


Seconds = Annotated[float, BeforeValidator(_parse_seconds), Field(gt=0, allow_inf_nan=False)]
"""A positive number of seconds; text may carry a unit: 250ms, 10s, 5m, 1h, 7d."""

SecondsOrZero = Annotated[float, BeforeValidator(_parse_seconds), Field(ge=0, allow_inf_nan=False)]

ByteCount = Annotated[ByteSize, Field(gt=0)]
"""A positive number of bytes; text may carry a unit: 64KiB, 8MiB."""

Port = Annotated[int, Field(ge=0, le=MAX_PORT)]
"""A TCP port; 0 lets the system pick one."""

Host = Annotated[str, AfterValidator(_check_host)]
"""Where to listen: a name, or an address; 0.0.0.0 and :: are all of this machine's."""

Count = Annotated[int, Field(ge=1)]

PortOrOff = Annotated[Port | None, BeforeValidator(_parse_port)]
"""None, as text -1 or off, is no port."""

Address = Annotated[str, AfterValidator(_check_address)]
"""host:port, by which others reach something."""

RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
"""May be empty, and may carry a password."""


def variable_of(key: str) -> str:
    """What a key is called in the environment."""
    return ENV_PREFIX + key.replace(".", ENV_DELIMITER).upper()
