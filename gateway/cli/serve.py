"""`gateway serve`: run the gateway, with an embedded Valkey unless REDIS_URL names a server."""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from gateway.app import Gateway
from gateway.cli.errors import CommandError
from gateway.settings import Settings, SettingsError, load_prices, load_settings
from gateway.store.connection import UnfitRedis
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError

log = logging.getLogger("gateway.serve")

ADMIN_KEY_FILE = "admin-key"
_AFTER_GRACE_S = 5


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gateway serve", description=__doc__)
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", help="port to listen on; 0 takes a free one (GATEWAY_PORT)")
    given = vars(parser.parse_args(argv))
    overrides = {f"GATEWAY_{name.upper()}": value for name, value in given.items() if value is not None}
    return serve({**os.environ, **overrides})


def serve(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code. Raises CommandError: it cannot start, and why."""
    configure_logging()
    try:
        settings = load_settings(environ)
        prices = load_prices(settings)
    except SettingsError as error:
        raise CommandError(str(error)) from None
    if not settings.upstream_api_key:
        raise CommandError("MINITOOLAI_API_KEY is not set; put MiniToolAI's own key there (or try `gateway demo`)")
    admin_key = settings.admin_key or generated_admin_key(Path(settings.data_dir))
    embedded = None if settings.redis_url else EmbeddedRedis(Path(settings.data_dir))
    try:
        if embedded is not None:
            embedded.start()
        gateway = Gateway(settings, prices, admin_key, embedded.url if embedded else settings.redis_url)
        return _run(gateway, settings, embedded)
    except (EmbeddedRedisError, UnfitRedis) as error:
        raise CommandError(str(error)) from None
    finally:
        if embedded is not None:
            embedded.stop()


class Server(uvicorn.Server):
    """uvicorn, with a graceful end: on SIGTERM calls in flight finish within the grace time, the rest are ended."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, grace_s: float, embedded: EmbeddedRedis | None
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._grace_s = grace_s
        self._embedded = embedded

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: see to the embedded Redis."""
        if self._embedded is not None and self._embedded.revive():
            log.error("the embedded Redis had ended and was started again; its log is %s", self._embedded.log)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The server's own handler would raise the signal again once all is closed, and end the process by it: without
        stopping the embedded Redis, and with an exit code that means failure."""
        self._gateway.drain()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Stop listening, let streams run for the grace time, then ask each to end; uvicorn waits for them."""
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._gateway.services.tasks.hurry)
        try:
            await super().shutdown(sockets)  # type: ignore[arg-type]
        finally:
            timer.cancel()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"gateway listening on http://{host}:{port}", flush=True)


def configure_logging() -> None:
    """One line a record on standard output; a call's line is already JSON."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def generated_admin_key(data_dir: Path) -> str:
    """The key in the data directory, made at the first start; shown only where a person sees it."""
    path = data_dir / ADMIN_KEY_FILE
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = f"sk-admin-{secrets.token_urlsafe(32)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
    if sys.stdout.isatty():
        print(f"administrator's key (kept in {path}): {key}")
    else:
        print(f"an administrator's key was made; it is in {path}")
    return key


def _run(gateway: Gateway, settings: Settings, embedded: EmbeddedRedis | None) -> int:
    config = uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_s) + _AFTER_GRACE_S,
    )
    server = Server(config, gateway, settings.grace_s, embedded)
    server.run()
    return 0 if server.started else 1
