"""Pictures are fetched from where the upstream says, but from nowhere that only this machine can reach."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.pictures import NotFetched, PictureFetcher, place_of, public_address
from tests.upstream.test_legs import Handler, upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture"


def serving(answer: bytes, heads: list[bytes] | None = None) -> Handler:
    """A server that answers so, and keeps what it was asked."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(answer)
        await reader.read()

    return handler


def with_server(handler: Handler, work: Callable[[str], Awaitable[None]]) -> None:
    async def story() -> None:
        async with upstream(handler) as url:
            await work(url)

    asyncio.run(story())


async def why_not(fetcher: PictureFetcher, url: str) -> str:
    """Why a picture is not fetched."""
    with pytest.raises(NotFetched) as raised:
        await fetcher.fetch(url)
    return raised.value.reason


def test_the_upstreams_own_pictures_are_fetched_wherever_it_is() -> None:
    """Path and query as they are; no credentials go along."""
    heads: list[bytes] = []

    async def work(url: str) -> None:
        assert b"picture" == await PictureFetcher(url).fetch(f"{url}/images/7.png?size=1%20x")

    with_server(serving(OK, heads), work)
    assert heads[0].startswith(b"GET /images/7.png?size=1%20x HTTP/1.1\r\n")
    assert b"authorization" not in heads[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://localhost/a.png",
        "http://10.0.0.1/a.png",
        "http://192.168.1.1/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/a.png",
        "http://0.0.0.0/a.png",
        "http://224.0.0.1/a.png",
        "http://[::1]/a.png",
        "http://[fe80::1]/a.png",
        "http://[fd00::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://[2002:7f00:1::]/a.png",
        "http://[2001:0:1:2:3:4:80ff:fffe]/a.png",
        "http://[2a00:1450::5efe:7f00:1]/a.png",
        "http://[2a00:1450::200:5efe:808:808]/a.png",
        "http://[::]/a.png",
        "http://[::127.0.0.1]/a.png",
        "http://[::ffff:0:127.0.0.1]/a.png",
        "http://[::ffff:8.8.8.8]/a.png",
        "http://[64:ff9b::808:808]/a.png",
        "http://[64:ff9b:1::7f00:1]/a.png",
        "http://[fec0::1]/a.png",
        "http://[ff0e::1]/a.png",
        "http://[2001:db8::1]/a.png",
        "http://2130706433/a.png",
        "http://0x7f.1/a.png",
    ],
)
def test_what_only_this_machine_reaches_is_not_fetched(url: str) -> None:
    """However the address is spelled: metadata services, routers, what listens on the loopback."""
    assert "its address is not a public one" == asyncio.run(why_not(PictureFetcher("https://minitoolai.com"), url))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "http://user:secret@example.com/a.png",
        "http:///a.png",
        "http://example.com:port/a.png",
        "http://[::1/a.png",
        "http://example.com/a b.png",
        "http://example.com/a\r\nHost: b/",
        "http://example.com/ü.png",
        "",
    ],
)
def test_a_url_that_is_more_or_less_than_a_place_is_not_fetched(url: str) -> None:
    """Nothing is asked of anybody."""
    assert "its URL is none" in asyncio.run(why_not(PictureFetcher("https://minitoolai.com"), url))


def test_another_port_of_the_upstreams_machine_is_not_the_upstream() -> None:
    """What else runs there may be nobody's business."""

    async def work(url: str) -> None:
        other = PictureFetcher("http://127.0.0.1:1")
        assert "its address is not a public one" == await why_not(other, f"{url}/a.png")

    with_server(serving(OK), work)


def test_a_public_address_is_taken_as_it_was_looked_at() -> None:
    """A name that means another machine a moment later leads nowhere else: the connection goes to that address, and is
    asked for by the name."""
    heads: list[bytes] = []
    for address in ("93.184.215.14", "2a00:1450:4001:82a::200e"):
        assert address == asyncio.run(public_address(address, 80))

    async def work(url: str) -> None:
        named = f"http://pictures.example:{place_of(url).port}"
        leg = DirectLeg(named, connect_timeout_s=1, answer_timeout_s=1, connections_max=1, address="127.0.0.1")
        answer = await leg.ask("GET", "/", (), b"")
        assert b"picture" == await answer.read()
        await answer.close()
        await leg.close()

    with_server(serving(OK, heads), work)
    assert b"host: pictures.example:" in heads[0].lower()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nabcdefghijk", "answer too large"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na",
            "it came in a coding nobody asked for",
        ),
        (b"", "it did not come in time"),
    ],
)
def test_what_is_no_picture_within_the_bounds_is_not_fetched(answer: bytes, reason: str) -> None:
    """Another status, a way on to elsewhere, too many bytes, too much time."""

    async def work(url: str) -> None:
        fetcher = PictureFetcher(url, bytes_max=10, within_s=0.5)
        assert reason == await why_not(fetcher, f"{url}/a.png")

    with_server(serving(answer), work)


def test_behind_a_proxy_the_proxy_resolves_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for the picture by its name; what is a private address already is not asked for."""
    heads: list[bytes] = []

    async def work(url: str) -> None:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        fetcher = PictureFetcher("https://minitoolai.com")
        assert b"picture" == await fetcher.fetch("http://pictures.example/7.png")
        assert "its address is not a public one" == await why_not(fetcher, "http://10.0.0.1/7.png")

    with_server(serving(OK, heads), work)
    assert heads[0].startswith(b"GET http://pictures.example/7.png HTTP/1.1\r\n")
    assert 1 == len(heads)


def test_a_redirect_is_not_followed_behind_a_proxy_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked once; where the answer points to, nobody has looked at."""
    heads: list[bytes] = []
    found = b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def work(url: str) -> None:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        fetcher = PictureFetcher("https://minitoolai.com", within_s=20)
        assert "status 302" == await why_not(fetcher, "http://pictures.example/7.png")

    with_server(serving(found, heads), work)
    assert 1 == len(heads)
