"""Where a client is, as far as it counts: one IPv4 address, or the /64 of an IPv6 address.

Whoever has one IPv6 address has the other 2**64 of its network too (RFC 6177), so that they are one client.
"""

from __future__ import annotations

import logging
import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from django.http import HttpRequest

from .conf import settings

logger = logging.getLogger("livefeed.viewers")

#: Hops of X-Forwarded-For that are looked at, from the end: what is before them is the client's word.
MOST_HOPS = 50
#: Where everybody is whose address can't be read.
UNKNOWN = "unknown"
#: "1.2.3.4:5678", "[2001:db8::1]:443" and "[2001:db8::1]", as some proxies write a hop.
_WITH_PORT = re.compile(r"\[([^\[\]]+)\](?::\d*)?|([0-9.]+):\d*")
_warned = False


def address_of(request: HttpRequest) -> str:
    """Return the client's address: the peer's, or the one that our own proxies report (LIVEFEED_TRUSTED_PROXIES)."""
    return address_among(request.META.get("HTTP_X_FORWARDED_FOR", ""), str(request.META.get("REMOTE_ADDR") or ""))


def address_among(forwarded: str, peer: str) -> str:
    """Return the client's address out of ``X-Forwarded-For`` and the address at the other end of the connection."""
    hops = [hop.strip() for hop in forwarded.rsplit(",", MOST_HOPS)[-MOST_HOPS:] if hop.strip()]
    trusted = settings.TRUSTED_PROXIES
    if trusted and hops:
        return counted(hops[-min(trusted, len(hops))])
    if hops:
        _warn_of_a_proxy(peer, hops)
    return counted(peer)


def counted(text: str) -> str:
    """Return what an address counts as: "192.0.2.7", "2001:db8::/64", or "unknown" for what is none."""
    address = _parsed(text)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    match = _WITH_PORT.fullmatch(text)
    try:
        return ip_address(match[1] or match[2] if match else text)
    except ValueError:
        return None


def _warn_of_a_proxy(peer: str, hops: list[str]) -> None:
    """Say once what a proxy that nobody told us of does: all who are not signed in share its address."""
    global _warned
    address = _parsed(peer)
    if _warned or address is None or not address.is_private:
        return
    if any(_parsed(hop) == address for hop in hops):
        return  # the server has put the client's own address there
    _warned = True
    logger.warning(
        "Requests come through a proxy (they have X-Forwarded-For), but LIVEFEED_TRUSTED_PROXIES is 0: all who are not "
        "signed in share one address, and its limit. Set it to the number of your proxies."
    )
