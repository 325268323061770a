"""`gateway demo` as a stranger runs it: what it prints is true, what it offers works, and nothing is left behind."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_WAIT_S = 60

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


class Demo:
    """One demo in a folder of its own. Its processes all carry the folder in their environment."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli.main", "demo", "--port", "0", "--data-dir", str(folder), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, text: str) -> str:
        """All that is printed up to a line with this text, or up to the end."""
        assert self.process.stdout is not None
        while text not in self.output and (line := self.process.stdout.readline()):
            self.output += line
        return self.output

    def end(self, number: signal.Signals | None = None) -> int:
        """The exit code, all output read."""
        if number is not None:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=_WAIT_S)
        self.output += rest
        return self.process.returncode

    def children(self) -> list[int]:
        """Processes of this demo that still run: emulator, gateway, and the gateway's Valkey."""
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._owns(entry)]

    def _owns(self, entry: Path) -> bool:
        """By its environment, or, as Valkey writes its title over that, by the directory it works in."""
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            directory = (entry / "cwd").readlink()
        except OSError:
            return False  # ended meanwhile, or someone else's
        return f"GATEWAY_DATA_DIR={self.folder}".encode() in environment or directory == self.folder / "redis"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that has shown its summary and serves on."""
    demo = Demo(tmp_path_factory.mktemp("demo") / "data", "--seconds", "5")
    demo.read_until("Serving until Ctrl-C.")
    yield demo
    if demo.process.poll() is None:
        demo.end(signal.SIGTERM)


@pytest.fixture
def long_demo(tmp_path: Path) -> Iterator[Demo]:
    """A demo in the middle of its traffic."""
    demo = Demo(tmp_path / "data", "--seconds", "600")
    demo.read_until("Gateway http")
    yield demo
    if demo.process.poll() is None:
        demo.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def admin(demo: Demo) -> Iterator[httpx.Client]:
    """The control plane, by the URL and key that were printed."""
    with httpx.Client(base_url=printed(demo, "gateway"), headers={"authorization": f"Bearer {admin_key(demo)}"}) as it:
        yield it


def test_the_summary_equals_the_ledger(demo: Demo, admin: httpx.Client) -> None:
    """The tables are what one shows to whoever pays: each adds up to the ledger and to the emulator's bill."""
    entries = admin.get("/admin/v1/ledger", params={"limit": "1000"}).json()["data"]
    ledger = sum(entry["cost_nano_usd"] for entry in entries)
    bill = httpx.get(printed(demo, "emulator") + "/__bill").json()
    assert ledger == bill["totals"]["generated_nano_usd"] > 0
    for heading in ("Who spent what: teams", "Users", "Models"):
        assert ledger == sum(amounts(table(demo, heading))), heading
    assert [ledger] * 3 == amounts(table(demo, "Do the books agree?"))
    assert f"{len(entries)} entries" in demo.output
    assert "Yes: each call's entries equal its line of the bill to the nano-dollar" in demo.output


def test_each_kind_of_refusal_is_shown_with_its_reason(demo: Demo) -> None:
    """Money gone, money held, blocked, expired, not allowed, unknown, wrong: what a stranger came to see."""
    shown = set(re.findall(r"× +(\d{3} \S+)", demo.output))
    assert {
        "400 invalid_request",
        "401 expired_api_key",
        "401 invalid_api_key",
        "402 budget_exceeded",
        "403 model_not_allowed",
        "403 scope_blocked",
        "404 model_not_found",
        "429 budget_held",
    } <= shown


def test_no_line_is_wider_than_a_terminal(demo: Demo) -> None:
    """But for the path of the log, which is a temporary folder's here."""
    wide = [line for line in demo.output.splitlines() if len(line) > 100 and str(demo.folder) not in line]
    assert [] == wide


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_commands_work(demo: Demo) -> None:
    """Copied from the terminal and pasted into a shell, as they stand."""
    block = demo.output.split("In another terminal, in this folder")[1].split("  # Noam's")[0]
    exports = "\n".join(re.findall(r"^  export .*", block, re.MULTILINE))
    native, openai = re.findall(r"^  curl (?:.*\\\n)*.*", block, re.MULTILINE)
    done = shell(f"{exports}\n{native}")
    assert "data: [DONE]" in done.stdout, done
    done = shell(f"{exports}\n{openai}")
    assert '"object":"chat.completion"' in done.stdout, done
    python = re.search(r"^  python3 .*", block, re.MULTILINE)
    assert python is not None
    done = shell(f"{exports}\n{python[0]}")
    assert 0 == done.returncode, done
    assert re.search(r"\(\d+ tokens\)", done.stdout)


def test_the_printed_refusal_is_one(demo: Demo) -> None:
    """What is announced as an empty budget is empty."""
    command = re.search(r"^  GATEWAY_KEY=\S+ \\\n.*", demo.output, re.MULTILINE)
    assert command is not None
    done = shell(f"export GATEWAY_URL={printed(demo, 'gateway')}\n{command[0]}")
    assert 0 != done.returncode
    refusal = json.loads(done.stderr.removeprefix("402: "))
    assert "budget_exceeded" == refusal["error"]["code"]


def test_sigterm_ends_everything(demo: Demo) -> None:
    """Emulator, gateway and Valkey end with the demo; the exit code says that the books agreed."""
    assert 3 <= len(demo.children())
    assert 0 == demo.end(signal.SIGTERM)
    assert [] == demo.children()
    assert "Traceback" not in demo.output + (demo.folder / "gateway.log").read_text()


def test_the_next_demo_begins_with_empty_books_and_may_end_by_itself(demo: Demo) -> None:
    """The folder of the last demo is used again; `--exit` needs nobody to end it."""
    again = Demo(demo.folder, "--seconds", "1", "--exit")
    assert 0 == again.end(), again.output
    assert "Yes: each call's entries" in again.output
    assert "Try it" not in again.output
    entries = re.search(r"(\d+) entries", again.output)
    assert entries is not None
    assert 50 > int(entries[1])
    assert [] == again.children()


def test_a_demo_that_is_interrupted_cleans_up(long_demo: Demo) -> None:
    """Ctrl-C in the middle of the traffic is no error and leaves nothing."""
    assert 130 == long_demo.end(signal.SIGINT)
    assert "stopped before its summary" in long_demo.output
    assert "Traceback" not in long_demo.output
    assert [] == long_demo.children()


def test_a_demo_that_is_killed_takes_its_processes_along(long_demo: Demo) -> None:
    """Nobody is told of a SIGKILL, so the kernel ends the children."""
    ends = [os.pidfd_open(pid) for pid in long_demo.children()]
    assert 3 <= len(ends)
    long_demo.process.kill()
    for end in ends:
        assert select.select([end], [], [], _WAIT_S)[0]
        os.close(end)
    long_demo.end()


def test_a_gateway_that_dies_is_reported(long_demo: Demo) -> None:
    """In one line that names the log, not as a traceback."""
    for pid in long_demo.children():
        if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert 1 == long_demo.end()
    assert "gateway.log" in long_demo.output.splitlines()[-1]
    assert "Traceback" not in long_demo.output
    assert [] == long_demo.children()


def shell(script: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=_WAIT_S,
        check=False,
    )


def printed(demo: Demo, name: str) -> str:
    """A URL of the closing list."""
    match = re.search(rf"^  {name} +(http://\S+)", demo.output, re.MULTILINE)
    assert match is not None, demo.output
    return match[1]


def admin_key(demo: Demo) -> str:
    match = re.search(r"^  administrator +(\S+)", demo.output, re.MULTILINE)
    assert match is not None
    return match[1]


def table(demo: Demo, heading: str) -> str:
    """The lines below a heading, up to the next blank one."""
    return demo.output.split(f"\n{heading}\n")[1].split("\n\n")[0]


def amounts(text: str) -> list[int]:
    """Each line's first amount, in nano-USD."""
    found = [re.search(r"\$(\d+)\.(\d{9})\b", line) for line in text.splitlines()]
    return [int(match[1] + match[2]) for match in found if match]
