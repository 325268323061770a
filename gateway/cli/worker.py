"""One of several processes of a gateway. Its parent (`cli/workers.py`) starts it, and hands on all it needs.

Settings and prices come from the parent, not from the environment and the files anew: those may have changed since, and
workers of one gateway must not differ.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.app import Gateway
from gateway.billing.price_schedule import PriceSchedule
from gateway.cli.logs import configure_logging
from gateway.cli.server import Server
from gateway.settings import Settings
from gateway.shared_metrics import Share

Address = tuple[socket.AddressFamily, tuple[str, int]]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to serve, and as which of them. `log_turn` is the file by which log lines take turns."""

    settings: Settings
    prices: PriceSchedule
    admin_key: str
    redis_url: str
    addresses: Sequence[Address]
    share: Share
    log_turn: Path
    parent: int


def run_worker(order: Order, report: Connection) -> None:
    """Serve until SIGTERM. Reports "" once it listens, or why it cannot start."""
    if not _end_with(order.parent):
        return
    os.setsid()  # a terminal's Ctrl-C is for the parent alone, which tells its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    lines = configure_logging(order.log_turn)
    gateway = Gateway(order.settings, order.prices, order.admin_key, order.redis_url, share=order.share, lines=lines)
    server = Server(gateway, order.settings, lambda _: report.send(""))
    try:
        sockets = [own_socket(address) for address in order.addresses]
    except OSError as error:
        report.send(f"cannot listen: {error.strerror}")
        return
    server.run_to_end(sockets)
    if not server.started:
        report.send(gateway.fault or "it ended before it could listen")


def own_socket(address: Address) -> socket.socket:
    """A socket of this process's own on an address it shares: the kernel gives each new connection to one of them.

    Does not listen yet. Raises OSError: the address is taken, or is none of this machine's.
    """
    family, place = address
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(place)
    except OSError:
        one.close()
        raise
    return one


def _end_with(parent: int) -> bool:
    """From here on SIGTERM when the parent is killed; False where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent
