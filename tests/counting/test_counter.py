"""Counts are tiktoken's, whatever happens to the process that makes them; and it never outlives its gateway."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.counting.counter import Counter
from gateway.wire.call import PromptText
from gateway.wire.tokens import count_prompt
from tests.e2e.waiting import until

NO_LIMIT = 10**9
PROMPTS = [
    PromptText((), 3),
    PromptText(("hello world", "user"), 6),
    PromptText(("Xin chào thế giới", "שלום עולם", "<|endoftext|>"), 0),
    PromptText(("many words " * 50_000, "\t" * 100_000), 7),
]
DIES = (sys.executable, "-c", r"import sys; sys.stdout.write('\1'); sys.stdout.flush(); sys.stdin.read(1)")
"""Says that it can count, and ends when it is asked."""


@pytest.fixture
def counter() -> Iterator[Counter]:
    one = Counter()
    yield one
    one.close()


def test_it_counts_as_tiktoken_does(counter: Counter) -> None:
    """Through the process and back: the same numbers, also at the maximum where counting stops."""
    for prompt in PROMPTS:
        for tokens_max in (NO_LIMIT, 1_000, 5):
            assert count_prompt(prompt, tokens_max) == counter.count(prompt, tokens_max)


def test_the_process_is_started_at_the_first_count_and_kept(counter: Counter) -> None:
    """Most gateways never count: they must not pay for it."""
    before = counter.pid
    counter.count(PROMPTS[1], NO_LIMIT)
    first = counter.pid
    counter.count(PROMPTS[2], NO_LIMIT)
    assert (None, first) == (before, counter.pid)
    assert first is not None


def test_half_a_character_is_counted(counter: Counter) -> None:
    """A request never has one; nothing that is counted may fail."""
    assert 0 < counter.count(PromptText(("a\ud800",), 0), NO_LIMIT)


def test_many_threads_get_each_their_own_count(counter: Counter) -> None:
    """Admissions, settlements and renewals count at once, over one process."""
    prompts = PROMPTS * 8
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda prompt: counter.count(prompt, NO_LIMIT), prompts))
    assert [count_prompt(prompt, NO_LIMIT) for prompt in prompts] == counts


def test_a_process_that_was_killed_is_started_again(counter: Counter) -> None:
    """The kernel may take it for its memory: no count is lost."""
    counter.count(PROMPTS[1], NO_LIMIT)
    first = counter.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert 9 == counter.count(PROMPTS[1], NO_LIMIT)
    assert counter.pid not in (None, first)


def test_a_count_goes_on_in_another_process_where_the_first_is_killed_meanwhile(counter: Counter) -> None:
    """It was asked and had not answered: it is asked once more."""
    counter.count(PROMPTS[0], NO_LIMIT)
    first = counter.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)  # so that it surely has not answered
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(counter.count, PROMPTS[1], NO_LIMIT)
        until(counting.running)
        os.kill(first, signal.SIGKILL)
        assert 9 == counting.result()


def test_a_prompt_that_ends_the_process_twice_counts_as_its_bytes() -> None:
    """An upper bound, and no third try: that prompt must not keep all others from being counted."""
    counter = Counter(DIES)
    assert 6 + len("hello world" + "user") == counter.count(PROMPTS[1], NO_LIMIT)
    assert 5 == counter.count(PROMPTS[1], 5)
    assert counter.pid is None


@pytest.mark.parametrize("command", [("/nonexistent/python",), (sys.executable, "-c", "pass")])
def test_without_a_process_it_is_counted_here(command: tuple[str, ...]) -> None:
    """Where none can be started, or none comes up: a stall is better than no bill."""
    counter = Counter(command)
    for prompt in PROMPTS:
        assert count_prompt(prompt, NO_LIMIT) == counter.count(prompt, NO_LIMIT)
    assert counter.pid is None


def test_a_signal_to_the_whole_group_does_not_end_it(counter: Counter) -> None:
    """Ctrl-C and a supervisor's SIGTERM are for the gateway, which has calls to settle yet."""
    counter.count(PROMPTS[0], NO_LIMIT)
    first = counter.pid
    assert first is not None
    for meant_for_the_gateway in (signal.SIGINT, signal.SIGTERM):
        os.kill(first, meant_for_the_gateway)
    assert 9 == counter.count(PROMPTS[1], NO_LIMIT)
    assert first == counter.pid


def test_closing_ends_the_process() -> None:
    """Nothing of a gateway stays behind; one that has not counted has nothing to end."""
    counter = Counter()
    counter.close()
    counter.count(PROMPTS[0], NO_LIMIT)
    assert counter.pid is not None
    directory = Path(f"/proc/{counter.pid}")
    counter.close()
    assert not directory.exists()


def test_it_ends_with_a_gateway_that_is_killed() -> None:
    """Nobody is left to close it: its input ends."""
    program = (
        "import signal; from gateway.counting.counter import Counter; from gateway.wire.call import PromptText;"
        "counter = Counter(); counter.count(PromptText((), 0), 1); print(counter.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        gateway.kill()
    until(lambda: _has_ended(pid))


def _has_ended(pid: int) -> bool:
    """Gone, or a zombie that nobody above it has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
