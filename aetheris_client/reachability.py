"""Why no server answers at an address: looked into once it is known that none does.

gRPC says only that it is still trying. This tries by itself, step by step: the name, the
connection, the encryption. And it knows what gRPC does with proxies.
"""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

PROBE_TIMEOUT: Final = 2.0
"""Seconds that looking into it may take altogether."""

# In gRPC's order.
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES: Final = ("no_grpc_proxy", "no_proxy")

_NO_SERVER: Final = (
    "something listens there, but does not answer as a gRPC server: another program, or a server"
    " that has not begun to serve"
)

_WITHOUT_SCHEME: Final = re.compile(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:)", re.IGNORECASE)


def split_address(address: str) -> tuple[str, int] | None:
    """Host and port; None for what is not `host:port`, with or without gRPC's `dns:` before."""
    host, _, port = _WITHOUT_SCHEME.sub("", address).rpartition(":")
    if "/" in host:
        # Another scheme, such as that of a web page.
        return None
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether it is on this machine, where no proxy leads."""
    split = split_address(address)
    if split is None:
        return False
    host = split[0].lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    # A module of a millisecond, which a name does not need.
    import ipaddress

    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def proxy_for(address: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The variable by which gRPC goes through a proxy to the address; None if it goes straight."""
    split = split_address(address)
    if split is None or is_loopback(address):
        return None
    variable = next((name for name in _PROXY_VARIABLES if environment.get(name)), None)
    if variable is None:
        return None
    listed = next((environment[name] for name in _NO_PROXY_VARIABLES if environment.get(name)), "")
    suffixes = [part.strip().lstrip("*") for part in listed.split(",")]
    is_exempt = any(suffix and split[0].endswith(suffix) for suffix in suffixes)
    return None if is_exempt else variable


async def why_unreachable(address: str, tls: ssl.SSLContext | None, server_name: str | None) -> str:
    """What is probably the matter, in a few words.

    Args:
        address: Where no server answered.
        tls: How this side encrypts; None if it does not.
        server_name: The name that the certificate must have; the address's where None.
    """
    split = split_address(address)
    if split is None:
        return "the address is not host:port"
    variable = proxy_for(address)
    if variable is not None:
        # Without what may be a password.
        proxy = urlsplit(os.environ[variable]).hostname or "unnamed"
        host = split[0]
        return f"calls go through the proxy {proxy} that {variable} names; no_proxy={host} stops it"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            return await _probe(*split, tls, server_name)
    except TimeoutError:
        return "the connection is not answered: a firewall, another address, or a server that hangs"


async def _probe(host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None) -> str:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return f"the host name {host!r} is not known"
    refusals = [await _refusal(str(target[0]), port) for *_, target in found]
    if all(refusals):
        return refusals[0]
    if tls is None:
        return await _why_not_plain(host, port)
    return await _why_not_encrypted(host, port, tls, server_name)


async def _refusal(ip: str, port: int) -> str:
    """Why no connection is made; empty if one is."""
    try:
        await _connect(ip, port, None, None)
    except ConnectionRefusedError:
        return "connection refused: nothing listens there"
    except OSError as error:
        return error.strerror or str(error)
    return ""


async def _why_not_plain(host: str, port: int) -> str:
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    try:
        await _connect(host, port, anyone, host)
    except OSError:
        return _NO_SERVER
    return "the server expects TLS: connect with tls=True, or with a TlsConfig"


async def _why_not_encrypted(
    host: str, port: int, tls: ssl.SSLContext, server_name: str | None
) -> str:
    try:
        await _connect(host, port, tls, server_name or host)
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate is not accepted: {error.verify_message}"
    except OSError:
        return "the server does not speak TLS (connect without tls), or wants a client certificate"
    return _NO_SERVER


async def _connect(
    host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None
) -> None:
    _, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=server_name)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
