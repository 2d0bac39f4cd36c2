"""Where webhooks may go: to servers on the public Internet, by one spelling of their address, and nowhere else.

Whoever may choose an address for us to call could call, through us, what only we can reach: this process, its neighbours,
the cloud's metadata (server-side request forgery).
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from src.config import get_settings, web_address

_PORTS: Final = {"https": 443, "http": 80}
_FIRST_OF_ANYBODY: Final = 1024
_LONGEST_NAME: Final = 253
_LABEL: Final = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
# At least two labels: one alone is a neighbour's name. The last one begins with a letter, or browsers, libraries and
# inet_aton read it as a part of a number: 127.1, 0x7f.1, 2130706433.
_NAME: Final = re.compile(rf"({_LABEL}\.)+(?=[a-z]){_LABEL}")
_LOCAL: Final = re.compile(r"(.+\.)?localhost")
# RFC 6890 and what came after it (IANA's registry of special-purpose addresses), multicast and future use, and two that
# are public by their number: the relays of 6to4, and the platform of a cloud (168.63.129.16).
_NOT_PUBLIC_4: Final = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "168.63.129.16/32"),
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
)
_PUBLIC_6: Final = ip_network("2000::/3")
"""All that is global unicast (RFC 4291 §2.4). What maps or translates to IPv4 lies outside, but for 6to4 and Teredo."""
_NOT_PUBLIC_6: Final = tuple(
    ip_network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20")
)
# Of our own: a name whose servers never answer holds a thread for as long as the system asks them, and others in the
# process look up names too.
_RESOLVERS: Final = ThreadPoolExecutor(32, thread_name_prefix="webhooks-dns")
# And those who only ask whether one may be saved do not take what deliveries need.
RESOLVERS_WHEN_SAVED: Final = ThreadPoolExecutor(4, thread_name_prefix="webhooks-dns-saved")


class RefusedAddressError(Exception):
    """Nothing is sent there: by how it is written, by where it leads, or since nobody knows it. Which of them is not said:
    names of the inside would be found out by trying."""


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    """In lower case; without the brackets of IPv6."""
    port: int


def read(url: str) -> Target:
    """
    Raises:
        RefusedAddressError
    """
    try:
        parts = urlsplit(web_address(url))
    except ValueError:
        raise RefusedAddressError from None
    host, port = parts.hostname or "", parts.port if parts.port is not None else _PORTS[parts.scheme]
    if (
        not url.startswith(f"{parts.scheme}://")
        or parts.netloc.endswith(":")
        or (parts.scheme == "http" and not get_settings().http_receivers_allowed)
        or (port not in _PORTS.values() and port < _FIRST_OF_ANYBODY)
        or not (_is_name(host) or _literal(parts.netloc) is not None)
    ):
        raise RefusedAddressError
    return Target(host, port)


def _is_name(host: str) -> bool:
    return len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None and _LOCAL.fullmatch(host) is None


def _literal(netloc: str) -> IPv4Address | IPv6Address | None:
    """What is written as an address, and in no other way than Python writes it: four numbers, or IPv6 in brackets."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::\d+)?", netloc.lower())
    if found is None:
        return None
    try:
        return IPv6Address(found[1]) if found[1] is not None else IPv4Address(found[2])
    except ValueError:
        return None


async def locate(url: str, resolvers: Executor = _RESOLVERS) -> str:
    """The one address to connect to. Looked up once: asked again, the DNS may say something else.

    Raises:
        RefusedAddressError
    """
    target = read(url)
    addresses = await _look_up(target, resolvers)
    # One that is not public is not left out: a name that leads inside and outside is no mistake of a receiver's.
    if not addresses or not all(is_allowed(address) for address in addresses):
        raise RefusedAddressError
    return addresses[0]


async def _look_up(target: Target, resolvers: Executor) -> Sequence[str]:
    try:
        return [str(ip_address(target.host))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().run_in_executor(resolvers, _ask, target)
    except (OSError, UnicodeError):
        return []
    return [str(place[0]) for *_, place in found]


def _ask(target: Target) -> Sequence[tuple[object, object, object, object, tuple[object, ...]]]:
    # Only families that this machine has a way for.
    return socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


def is_allowed(written: str) -> bool:
    try:
        address = ip_address(written)
    except ValueError:
        return False  # with a zone: fe80::1%eth0
    if any(address in ip_network(network) for network in get_settings().webhooks.allowed_networks):
        return True
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)
