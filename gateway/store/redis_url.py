"""Read REDIS_URL: redis-py's own three forms, and one each for Sentinel and a cluster, which name several hosts.

    redis://user:password@host:6379/0                             rediss:// over TLS, unix:///path/to/socket
    redis+sentinel://user:password@host:26379,host2/mymaster/0    rediss+sentinel:// over TLS
    redis+cluster://user:password@host:6379,host2:6379            rediss+cluster:// over TLS

User, password and options (`?ssl_ca_certs=…`) are for the servers and mean what redis-py says. Sentinels have a user
and a password of their own: `?sentinel_username=…&sentinel_password=…`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

Kind = Literal["server", "sentinel", "cluster"]

FORMS = tuple(f"{scheme}{kind}://" for kind in ("", "+sentinel", "+cluster") for scheme in ("redis", "rediss"))
_PORTS = {"sentinel": 26379, "cluster": 6379}
_FOR_SENTINELS = "sentinel_"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says."""

    kind: Kind
    options: dict[str, Any]
    """For connections to servers, as redis-py names them."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Sentinels, or nodes of the cluster; any one that answers will do."""
    service: str = ""
    """What Sentinel calls the master."""
    sentinel_options: dict[str, str] = field(default_factory=dict)
    """For connections to Sentinels: their user and password."""
    tls: bool = False


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError: it is none of the forms. Its text may repeat the URL, and that may hold a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("it has no scheme")
    plain, _, kind = scheme.partition("+")
    if kind not in _PORTS or plain not in ("redis", "rediss"):
        return RedisUrl("server", dict(parse_url(url)))
    parts = urlsplit(f"{plain}://{rest}")
    user, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        service, database = "", service
    if (kind == "sentinel") != bool(service) or (kind == "cluster" and database not in ("", "0")):
        raise ValueError("Sentinel needs the name of a service, and a cluster has one database")
    # One host stands for all, so that redis-py reads the rest.
    first = f"{plain}://{user}@localhost/{database}" if user else f"{plain}://localhost/{database}"
    options: dict[str, Any] = dict(parse_url(f"{first}?{parts.query}"))
    tls = options.pop("connection_class", None) is SSLConnection
    del options["host"]
    return RedisUrl(
        cast(Kind, kind),
        {name: value for name, value in options.items() if not name.startswith(_FOR_SENTINELS)},
        tuple(_address(host, _PORTS[kind]) for host in hosts.split(",")),
        unquote(service),
        {name.removeprefix(_FOR_SENTINELS): options[name] for name in options if name.startswith(_FOR_SENTINELS)},
        tls,
    )


def _address(text: str, default_port: int) -> tuple[str, int]:
    """Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return unquote(parts.hostname), parts.port or default_port
