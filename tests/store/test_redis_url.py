"""Every form of REDIS_URL, and what is none."""

import pytest

from gateway.store.redis_url import RedisUrl, parse_redis_url

PLAIN = {"db": 0}
NAMED = {"db": 2, "username": "books", "password": "a/b"}


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://books:a%2Fb@one:7000/2", RedisUrl("server", {**NAMED, "host": "one", "port": 7000})),
        ("redis+sentinel://one/main", RedisUrl("sentinel", {}, (("one", 26379),), "main")),
        (
            "redis+sentinel://books:a%2Fb@one:7000,[::1]:7001,two/main/2",
            RedisUrl("sentinel", NAMED, (("one", 7000), ("::1", 7001), ("two", 26379)), "main"),
        ),
        (
            "rediss+sentinel://one/main/0?ssl_ca_certs=/ca.pem&sentinel_username=w&sentinel_password=p",
            RedisUrl(
                "sentinel",
                {**PLAIN, "ssl_ca_certs": "/ca.pem"},
                (("one", 26379),),
                "main",
                {"username": "w", "password": "p"},
                tls=True,
            ),
        ),
        ("redis+cluster://one:7000,two", RedisUrl("cluster", {}, (("one", 7000), ("two", 6379)))),
        (
            "rediss+cluster://books:a%2Fb@one/0?ssl_ca_certs=/ca.pem",
            RedisUrl(
                "cluster",
                {**NAMED, "db": 0, "ssl_ca_certs": "/ca.pem"},
                (("one", 6379),),
                tls=True,
            ),
        ),
    ],
)
def test_a_url_is_read_whole(url: str, read: RedisUrl) -> None:
    """Hosts are those of Sentinel or the cluster; user, password and options are for the servers."""
    assert read == parse_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "valkey://one",
        "redis+other://one",
        "http+cluster://one",
        "redis+sentinel://one",
        "redis+sentinel:///main",
        "redis+sentinel://one,/main",
        "redis+sentinel://one:port/main",
        "redis+cluster://",
        "redis+cluster://one/1",
    ],
)
def test_what_is_no_form_is_refused(url: str) -> None:
    """Sentinel needs the name of a service; a cluster has one database; both need hosts."""
    with pytest.raises(ValueError):  # noqa: PT011  # whoever calls it shows a text of its own
        parse_redis_url(url)
