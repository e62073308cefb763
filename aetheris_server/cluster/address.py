"""The address that a host gives to the others. It must be its alone: see `Membership.join`."""

import asyncio
import ipaddress
import socket

from aetheris_server.config import InternalSettings

__all__ = ["advertised_address"]

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_LOOKUP_TIMEOUT = 5.0


async def advertised_address(settings: InternalSettings, bound_to: str) -> str:
    """The host:port by which other hosts reach this one.

    Args:
        settings: Which may name it.
        bound_to: The host:port at which this one listens for them.
    """
    if settings.advertised_address:
        return settings.advertised_address
    if settings.host not in _ANY_ADDRESS:
        return bound_to
    return f"{await _own_host()}:{bound_to.rpartition(':')[2]}"


async def _own_host() -> str:
    """The address that this machine's name stands for here; the name itself, where that is loopback
    or nothing.

    In a container the name means something, but often to nobody else.
    """
    name = socket.gethostname()
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(name, None)
    except (OSError, TimeoutError):
        return name
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not address.is_loopback and not address.is_link_local:
            return f"[{address}]" if address.version == 6 else str(address)
    return name
