"""Which leg a gateway needs: our own connections, or httpx behind an outbound proxy."""

from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.leg import UpstreamLeg


def leg_to(base_url: str, *, connect_timeout_s: float, answer_timeout_s: float, connections_max: int) -> UpstreamLeg:
    """The leg to the upstream at `base_url`, as this process's environment reaches it."""
    kind: Callable[..., UpstreamLeg] = DirectLeg
    if is_behind_proxy(base_url):
        from gateway.upstream.httpx_leg import HttpxLeg  # noqa: PLC0415  # 5 MiB that nobody else needs

        kind = HttpxLeg
    return kind(
        base_url,
        connect_timeout_s=connect_timeout_s,
        answer_timeout_s=answer_timeout_s,
        connections_max=connections_max,
    )


def is_behind_proxy(base_url: str) -> bool:
    """Whether the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) puts a proxy before this upstream."""
    url = urlsplit(base_url)
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    return bool(named) and not proxy_bypass(url.hostname or "")
