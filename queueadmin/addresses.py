"""Which addresses belong to the public internet, so that nobody makes us call our own network."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

#: Networks that look public and lead elsewhere: NAT64, 6to4, Teredo.
_TUNNELS = tuple(
    ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in net for net in _TUNNELS):
            return False
    return ip.is_global and not ip.is_multicast


def is_in(address: str, networks: Iterable[str]) -> bool:
    """Return whether an IP address is in one of the networks."""
    ip = ip_address(address.partition("%")[0])
    known: list[IPv4Network | IPv6Network] = [ip_network(net) for net in networks]
    return any(ip.version == net.version and ip in net for net in known)


def resolve(host: str, port: int) -> list[str]:
    """Return every IP address behind a name.

    Whoever checks them connects to one of these very addresses: a name server might answer
    differently the second time.

    Raises:
        OSError: there is none.
        UnicodeError: it can be no name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
