"""Who should have what: rendezvous hashing over the live hosts.

Each host ranks itself for each key by a hash of both; the highest has it. When a host comes or
goes, only the keys that it gains or had move.
"""

import ipaddress
from collections.abc import Collection
from hashlib import blake2b


def choose_host(key: str, addresses: Collection[str]) -> str | None:
    """The address that should have a key; None if there is none. Does not depend on the order."""
    return max(addresses, key=lambda address: (_rank(key, address), address), default=None)


def _rank(key: str, address: str) -> bytes:
    return blake2b(
        f"{len(key)}:{key}{address}".encode(), digest_size=8, usedforsecurity=False
    ).digest()


def is_loopback(address: str) -> bool:
    """Whether host:port can be reached from its own machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
