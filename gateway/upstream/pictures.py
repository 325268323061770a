"""Fetching the picture of a job from where the upstream says it is.

That place is the upstream's word alone, and this machine may reach what the world outside does not: so a picture is
fetched from the upstream's own host, or from one whose every address is public, and from exactly the address that was
looked at. No credentials are sent, redirects are not followed, size and time are bounded.
"""

import asyncio
import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.upstream.choice import is_behind_proxy
from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.leg import BrokenOff, UpstreamFault, whole

PICTURE_BYTES_MAX = 16 * 1024 * 1024
PICTURE_S = 30.0
_CONNECT_S = 5.0
_HEADERS = (
    (b"accept", b"image/*"),
    (b"accept-encoding", b"identity"),
    (b"user-agent", b"minitoolai-gateway"),
)
_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out to the world. What lies outside is local, or stands for an address of IPv4: mapped,
compatible, translated, by a NAT64."""


class NotFetched(Exception):
    """There is no picture to be had from there. `reason` is short, and names no address of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Place(NamedTuple):
    """Where a server is, by its URL."""

    scheme: str
    host: str
    port: int


class PictureFetcher:
    """Fetches pictures for a gateway whose upstream is at `upstream_base_url`."""

    def __init__(
        self, upstream_base_url: str, *, bytes_max: int = PICTURE_BYTES_MAX, within_s: float = PICTURE_S
    ) -> None:
        self._upstream = place_of(upstream_base_url)
        self._bytes_max = bytes_max
        self._within_s = within_s

    async def fetch(self, url: str) -> bytes:
        """The picture's bytes. Raises NotFetched."""
        place = place_of(url)
        try:
            async with asyncio.timeout(self._within_s):
                if is_behind_proxy(url):
                    return await self._fetch_by_proxy(place, url)
                address = None if place == self._upstream else await public_address(place.host, place.port)
                return await self._fetch(url, address)
        except TimeoutError:
            raise NotFetched("it did not come in time") from None
        except UpstreamFault as fault:
            raise NotFetched(fault.reason) from None

    async def _fetch(self, url: str, address: str | None) -> bytes:
        """From the URL's host, or from this address of it."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        leg = DirectLeg(
            f"{parts.scheme}://{parts.netloc}",
            connect_timeout_s=_CONNECT_S,
            answer_timeout_s=self._within_s + _CONNECT_S,  # never before the time for all of it is over
            connections_max=1,
            address=address,
        )
        try:
            answer = await leg.ask("GET", target, _HEADERS, b"")
            try:
                _refuse_unfit(answer.status, dict(answer.headers).get(b"content-encoding", b""))
                return await whole(answer, self._bytes_max)
            finally:
                await answer.close()
        finally:
            await leg.close()

    async def _fetch_by_proxy(self, place: Place, url: str) -> bytes:
        """The proxy resolves names, by rules of its own: here only what is an address already can be looked at."""
        import httpx  # noqa: PLC0415  # 5 MiB that nobody else needs

        if place != self._upstream and _is_address(place.host) and not _is_public(place.host):
            raise NotFetched("its address is not a public one")
        parts, size = [], 0
        headers = [(name.decode(), value.decode()) for name, value in _HEADERS]
        try:
            async with (
                httpx.AsyncClient(follow_redirects=False, timeout=self._within_s) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                _refuse_unfit(answer.status_code, answer.headers.get("content-encoding", "").encode())
                async for chunk in answer.aiter_raw():
                    parts.append(chunk)
                    size += len(chunk)
                    if size > self._bytes_max:
                        raise BrokenOff("answer too large")
        except httpx.HTTPError as error:
            raise NotFetched(type(error).__name__) from None
        return b"".join(parts)


def _refuse_unfit(status: int, coding: bytes) -> None:
    if status != 200:
        raise NotFetched(f"status {status}")
    if coding.strip().lower() not in (b"", b"identity"):
        raise NotFetched("it came in a coding nobody asked for")


def place_of(url: str) -> Place:
    """The server of a URL. Raises NotFetched: it is none of http(s), or says more than where."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotFetched("its URL is none") from None
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or not printable:
        raise NotFetched("its URL is none that a picture is fetched from")
    return Place(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])


async def public_address(host: str, port: int) -> str:
    """An address of a host that has public ones alone. Raises NotFetched."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotFetched("its host is not known") from None
    addresses = [str(place[0]) for *_, place in found]
    if not addresses or not all(map(_is_public, addresses)):
        raise NotFetched("its address is not a public one")
    return addresses[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: str) -> bool:
    """Whether the whole world reaches it; an IPv6 address that has one of IPv4 within is never taken."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in _GLOBAL_UNICAST or _is_tunnel(ip)):
        return False
    return ip.is_global and not ip.is_multicast


def _is_tunnel(ip: ipaddress.IPv6Address) -> bool:
    """By 6to4, Teredo or ISATAP: what is sent there goes on to an address of IPv4."""
    return bool(ip.sixtofour or ip.teredo) or int(ip) >> 32 & _ISATAP_MASK == _ISATAP


_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF
"""The upper half of its interface identifier; one bit of that says whether the IPv4 address is a public one."""
