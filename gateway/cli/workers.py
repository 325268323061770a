"""The parent of a gateway's workers: starts them, replaces those that die, and ends with them.

It serves no call itself. Laws:
- The gateway listens once all workers do; one that cannot start then stops the start, with its own words.
- From then on a worker that ends is replaced: at once if it lived, ever more rarely where it does not.
- The first SIGTERM or SIGINT lets all workers drain; a second SIGINT waits for nothing any more.
- Whatever only the main thread of one process may do (reviving the embedded Redis) is done here, until the last
  worker has settled.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from gateway.cli.errors import CommandError
from gateway.cli.server import CHECK_S
from gateway.cli.worker import Address, Order, own_socket, run_worker

log = logging.getLogger("gateway.workers")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_LIVED_S = 30.0

# Spawned, not forked: a worker begins without its parent's loops, locks and open files.
_spawn = multiprocessing.get_context("spawn")


class Workers:
    """`order_for` says what the worker of a number is to do; `prepare` is called before each start and after each end.

    `check` is called every 0.1 s for as long as any worker runs.
    """

    def __init__(
        self,
        count: int,
        order_for: Callable[[int], Order],
        prepare: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        self._workers = [_Worker(number, order_for(number), prepare) for number in range(count)]
        self._check = check
        self._signals: list[int] = []

    def run(self, on_listening: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT and the end of all workers. Raises CommandError: one cannot start."""
        with self._signals_kept():
            try:
                if self._all_listen():
                    on_listening()
                    self._replace_until_signalled()
            finally:
                self._end()

    def _all_listen(self) -> bool:
        """Start all and wait; False where a signal came before."""
        try:
            for worker in self._workers:
                worker.start()
        except OSError as error:
            raise CommandError(f"the gateway cannot start its workers: {error}") from None
        while not self._signals:
            if ended := self._look(self._workers):
                raise CommandError(f"the gateway cannot start: {ended[0].fault or ended[0].end}")
            if all(worker.listens for worker in self._workers):
                return True
        return False

    def _replace_until_signalled(self) -> None:
        while not self._signals:
            for worker in self._look(self._workers):
                log.error("%s and is started again%s", worker.end, f": {worker.fault}" if worker.fault else "")
            for worker in self._workers:
                worker.replace_if_due()

    def _end(self) -> None:
        running = [worker for worker in self._workers if not worker.ended]
        for worker in running:
            worker.signal(signal.SIGTERM)
        told = 1
        while running:
            for worker in self._look(running):
                if worker.failed:
                    log.error("%s before it was done", worker.end)
            if signal.SIGINT in self._signals[told:]:
                for worker in running:
                    worker.signal(signal.SIGINT)
            told = max(told, len(self._signals))
            running = [worker for worker in running if not worker.ended]

    def _look(self, workers: Sequence["_Worker"]) -> list["_Worker"]:
        """Wait a moment for news of workers and take it in; returns those that have ended meanwhile."""
        self._check()
        wait([source for worker in workers for source in worker.sources()], CHECK_S)
        running = [worker for worker in workers if not worker.ended]
        for worker in running:
            worker.take_news()
        return [worker for worker in running if worker.ended]

    @contextlib.contextmanager
    def _signals_kept(self) -> Iterator[None]:
        def keep(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {number: signal.signal(number, keep) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing it could reload
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Worker:
    """One place among the workers, and the process that has it now."""

    def __init__(self, number: int, order: Order, prepare: Callable[[int], None]) -> None:
        self._number = number
        self._order = order
        self._prepare = prepare
        self._pause_s = _FIRST_PAUSE_S
        self._started_at_s = 0.0
        self._process: SpawnProcess | None = None
        self._report: Connection | None = None
        self.listens = False
        self.fault = ""
        self.end = ""
        """How the last process ended, in words."""
        self.failed = False
        """Whether it ended by itself, or was killed."""

    @property
    def ended(self) -> bool:
        return self._process is None

    def start(self) -> None:
        """Raises OSError: its files cannot be made, or no process can."""
        self.listens, self.fault = False, ""
        self._started_at_s = time.monotonic()
        self._prepare(self._number)
        ours, theirs = _spawn.Pipe(duplex=False)
        process = _spawn.Process(target=run_worker, args=(self._order, theirs), name=f"worker-{self._number}")
        try:
            with theirs, _interrupts_kept_back():
                process.start()
        except OSError:
            ours.close()
            raise
        self._process, self._report = process, ours

    def sources(self) -> list[Connection | int]:
        """What becomes readable when there is news."""
        process = [] if self._process is None else [self._process.sentinel]
        return [*process, *([] if self._report is None else [self._report])]

    def take_news(self) -> None:
        """Its report, if there is one, and its end."""
        if self._report is not None and self._report.poll():
            self._take_report(self._report)
        if self._process is not None and not self._process.is_alive():
            self._take_end(self._process)

    def replace_if_due(self) -> None:
        """Start the place's next process where the last has ended and the pause is over."""
        lived_s = time.monotonic() - self._started_at_s
        if not self.ended or lived_s < self._pause_s:
            return
        self._pause_s = _FIRST_PAUSE_S if lived_s >= _LIVED_S else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        try:
            self.start()
        except OSError as error:  # no memory, no disk, no file handle left: another moment may have them
            log.error("worker %d cannot be started: %s", self._number, error)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def _take_report(self, report: Connection) -> None:
        try:
            self.fault = report.recv()
            self.listens = not self.fault
        except EOFError:
            pass  # it ended without a word
        report.close()
        self._report = None

    def _take_end(self, process: SpawnProcess) -> None:
        if self._report is not None and self._report.poll():
            self._take_report(self._report)
        elif self._report is not None:
            self._report.close()
            self._report = None
        self.end = f"worker {self._number} (process {process.pid}) has ended {_how(process.exitcode)}"
        self.failed = process.exitcode not in (0, -signal.SIGTERM)
        self.listens = False
        process.close()
        self._process = None
        with contextlib.suppress(OSError):  # the next start tries again, and tells
            self._prepare(self._number)


def reserved(host: str, port: int) -> list[socket.socket]:
    """Sockets that keep the addresses of a gateway for its workers, and themselves never listen.

    Sharing a port is open to every process of this user, so a second gateway on it would quietly take half of the
    calls: of any number that start at once one has it, and keeps it, also while none of its workers listens. Raises
    OSError: it is taken, or cannot be had.
    """
    places = dict.fromkeys(
        (family, place[:2])
        for family, _, _, _, place in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    )
    return [_reserved((family, (str(place[0]), int(place[1])))) for family, place in places]


def addresses_of(sockets: Sequence[socket.socket]) -> list[Address]:
    return [(one.family, one.getsockname()[:2]) for one in sockets]


@contextlib.contextmanager
def _interrupts_kept_back() -> Iterator[None]:
    """A terminal's Ctrl-C does not reach a process that is started here until it is in a session of its own."""
    resource_tracker.ensure_running()  # the first start would run it, and let signals through when that is done
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def _reserved(address: Address) -> socket.socket:
    """Two steps, so that there is no moment at which two gateways can both believe the address to be theirs.

    Of sockets that do not share, the kernel lets one listen. Under its cover the address is bound once more, to be
    shared. That socket then gives up SO_REUSEADDR, which it needed to bind beside connections of an earlier gateway
    that are still closing: from here on nobody who does not share can listen there, though nobody listens yet.
    """
    if not address[1][1]:  # the kernel chooses a port that is nobody's
        return _not_to_be_claimed(own_socket(address))
    with _listening_alone(address) as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return _not_to_be_claimed(own_socket(address))


def _listening_alone(address: Address) -> socket.socket:
    family, place = address
    claim = socket.socket(family, socket.SOCK_STREAM)
    try:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            claim.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        claim.bind(place)
        claim.listen(1)
    except OSError:
        claim.close()
        raise
    return claim


def _not_to_be_claimed(one: socket.socket) -> socket.socket:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return one


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"by {signal.Signals(-exit_code).name}"
    return f"with code {exit_code}"
