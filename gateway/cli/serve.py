"""`gateway serve`: run the gateway, with an embedded Valkey unless REDIS_URL names a server."""

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from gateway.app import Gateway
from gateway.cli.errors import CommandError
from gateway.settings import Settings, SettingsError, load_prices, load_settings
from gateway.store.connection import UnfitRedis
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError
from gateway.web.protocol import PlainProtocol

log = logging.getLogger("gateway.serve")

ADMIN_KEY_FILE = "admin-key"
_ADMIN_KEY_CHARS_MIN = 16
_AFTER_GRACE_S = 5
_REDIS_CHECK_S = 0.1


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
        raise CommandError("MINITOOLAI_API_KEY is not set; put MiniToolAI's own key there (or try `./run demo`)")
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

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Keep the embedded Redis alive for as long as anything may need it: also while calls drain and settle."""
        keeper = asyncio.create_task(self._keep_redis())
        try:
            await super().serve(sockets)  # type: ignore[arg-type]
        finally:
            keeper.cancel()

    async def _keep_redis(self) -> None:
        # On the event loop, hence the main thread: the server is to die with its parent, and by Linux that is a thread.
        while self._embedded is not None:
            try:
                if self._embedded.revive():
                    log.error("the embedded Redis had ended and was started again; its log is %s", self._embedded.log)
            except OSError as error:  # no memory, no process, no file handle left: another moment may have them
                log.error("the embedded Redis has ended and cannot be started: %s", error)
            await asyncio.sleep(_REDIS_CHECK_S)

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
        # What keeps it from starting is told in one line of ours, not in several of uvicorn's.
        uvicorn_log = logging.getLogger("uvicorn")
        uvicorn_log.setLevel(logging.CRITICAL)
        await super().startup(sockets)  # type: ignore[arg-type]
        uvicorn_log.setLevel(logging.WARNING)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"gateway listening on http://{host}:{port}", flush=True)


def configure_logging() -> None:
    """One line a record on standard output; a call's line is already JSON."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def generated_admin_key(data_dir: Path) -> str:
    """The key in the data directory, made at the first start; shown only where a person sees it.

    Raises CommandError: the file cannot be read or written, or holds no key.
    """
    path = data_dir / ADMIN_KEY_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = not path.exists() and _write_admin_key(path)
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not plain text"
        raise CommandError(f"the administrator's key in {path}: {reason}; or set GATEWAY_ADMIN_KEY") from None
    if len(key) < _ADMIN_KEY_CHARS_MIN or not key.isprintable() or " " in key:
        raise CommandError(f"{path} holds no administrator's key; remove it, and the next start makes a new one")
    if made and sys.stdout.isatty():
        print(f"administrator's key (kept in {path}): {key}")
    elif made:
        print(f"an administrator's key was made; it is in {path}")
    return key


def _write_admin_key(path: Path) -> bool:
    """Whole or not at all, whatever is killed; False where another start was faster: its key is the one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # readable by its owner alone
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"sk-admin-{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    return True


def _run(gateway: Gateway, settings: Settings, embedded: EmbeddedRedis | None) -> int:
    config = uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=PlainProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_s) + _AFTER_GRACE_S,
    )
    server = Server(config, gateway, settings.grace_s, embedded)
    with contextlib.suppress(SystemExit):  # how uvicorn ends when it cannot listen
        server.run()
    if not server.started:
        taken = f"cannot listen on {settings.host}:{settings.port}; if the port is taken, GATEWAY_PORT names another"
        raise CommandError(f"the gateway cannot start: {gateway.fault or taken}")
    return 0
