"""`gateway serve`: run the gateway, with an embedded Valkey unless REDIS_URL names a server."""

import argparse
import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.app import Gateway
from gateway.billing.price_schedule import PriceSchedule
from gateway.cli.errors import CommandError
from gateway.cli.logs import configure_logging
from gateway.cli.server import Server
from gateway.cli.worker import Order
from gateway.cli.workers import Workers, addresses_of, reserved
from gateway.fixed_secret import RANDOM_CHARS, is_beyond_guessing
from gateway.settings import Settings, SettingsError, load_prices, load_settings
from gateway.shared_metrics import MetricsFolder
from gateway.store.connection import UnfitRedis
from gateway.store.embedded import EmbeddedRedis, EmbeddedRedisError

log = logging.getLogger("gateway.serve")

ADMIN_KEY_FILE = "admin-key"
_ADMIN_KEY_CHARS_MIN = 16

Check = Callable[[], None]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gateway serve", description=__doc__)
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", help="port to listen on; 0 takes a free one (GATEWAY_PORT)")
    parser.add_argument("--workers", help="processes that serve (GATEWAY_WORKERS)")
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
    _warn_of_words(admin_key, settings.metrics_token)
    embedded = None if settings.redis_url else EmbeddedRedis(Path(settings.data_dir))
    try:
        if embedded is not None:
            embedded.start()
        serve_all = _serve_alone if settings.workers == 1 else _serve_with_workers
        serve_all(settings, prices, admin_key, embedded.url if embedded else settings.redis_url, _keep_alive(embedded))
        return 0
    except (EmbeddedRedisError, UnfitRedis) as error:
        raise CommandError(str(error)) from None
    finally:
        if embedded is not None:
            embedded.stop()


def _warn_of_words(admin_key: str, metrics_token: str) -> None:
    """Secrets that somebody may have chosen are served with less comfort, which is best known before."""
    for name, secret in (("GATEWAY_ADMIN_KEY", admin_key), ("GATEWAY_METRICS_TOKEN", metrics_token)):
        if secret and not is_beyond_guessing(secret):
            log.warning(
                "%s is short or plain enough to be guessed: after ten wrong keys from an address it is not looked at "
                "from there for seconds. A random one of %d characters or more is always served: openssl rand -hex 24",
                name,
                RANDOM_CHARS,
            )


def _serve_alone(settings: Settings, prices: PriceSchedule, admin_key: str, redis_url: str, check: Check) -> None:
    """This process is the gateway."""
    gateway = Gateway(settings, prices, admin_key, redis_url, lines=configure_logging())
    server = Server(gateway, settings, lambda server: _announce(server.servers[0].sockets[0]), check)
    server.run_to_end()
    if not server.started:
        raise CommandError(f"the gateway cannot start: {gateway.fault or _taken(settings)}")


def _serve_with_workers(
    settings: Settings, prices: PriceSchedule, admin_key: str, redis_url: str, check: Check
) -> None:
    """This process looks after those that are."""
    with contextlib.ExitStack() as ends:
        try:
            folder = ends.enter_context(MetricsFolder.open_in(Path(settings.data_dir)))
        except OSError as error:
            raise CommandError(f"the gateway cannot start: {settings.data_dir}/metrics: {error.strerror}") from None
        try:
            kept = [ends.enter_context(one) for one in reserved(settings.host, settings.port)]
        except OSError:
            raise CommandError(f"the gateway cannot start: {_taken(settings)}") from None
        log_turn = folder.path / "log-turn"
        configure_logging(log_turn)

        def order(worker: int) -> Order:
            share = folder.share(worker)
            return Order(
                settings, prices, admin_key, redis_url, addresses_of(kept), share, log_turn, parent=os.getpid()
            )

        Workers(settings.workers, order, folder.prepare, check).run(lambda: _announce(kept[0]))


def _announce(one: socket.socket) -> None:
    host, port = one.getsockname()[:2]
    print(f"gateway listening on http://{host}:{port}", flush=True)


def _taken(settings: Settings) -> str:
    return f"cannot listen on {settings.host}:{settings.port}; if the port is taken, GATEWAY_PORT names another"


def _keep_alive(embedded: EmbeddedRedis | None) -> Check:
    """To be called often, from the main thread: the server is to die with its parent, and by Linux that is a thread."""

    def check() -> None:
        if embedded is None:
            return
        try:
            if embedded.revive():
                log.error("the embedded Redis had ended and was started again; its log is %s", embedded.log)
        except OSError as error:  # no memory, no process, no file handle left: another moment may have them
            log.error("the embedded Redis has ended and cannot be started: %s", error)

    return check


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
