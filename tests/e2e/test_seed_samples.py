"""The samples of MiniToolAI's own documentation, run as they stand there but for URL and key.

They are read out of the Vietnamese page, so nobody can have helped them along. The page is not part of this
repository: the folder is `../shared/seeds` beside the checkout, or what MINITOOLAI_SEEDS names; without it
these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.client import CHAT, IMAGES, send
from tests.stack import ROOT, UPSTREAM_KEY, Admin, Process, Stack, bearer

SEED = Path(os.environ.get("MINITOOLAI_SEEDS", ROOT.parent / "shared" / "seeds")) / "000_15dcacb4d6683ece.txt"
UPSTREAM = "https://minitoolai.com"
SAMPLE_KEY = "MiniToolAI_API_Key"

CHAT_BODY = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "How can I help you today?"},
        {"role": "user", "content": "What's the largest U.S. state by area?"},
    ],
    "temperature": 1.0,
    "max_completion_tokens": 1000,
}
"""What the chat samples send, to ask the emulator for its own answer."""

IMAGE_INPUT_BODY = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What's in this image?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg", "detail": "auto"}},
            ],
        },
    ],
    "temperature": 0.7,
    "max_completion_tokens": 300,
}

pytestmark = pytest.mark.skipif(not SEED.is_file(), reason=f"the documentation's page is not at {SEED}")

needs_php = pytest.mark.skipif(
    shutil.which("php") is None
    or b"curl" not in subprocess.run(["php", "-m"], capture_output=True, check=False).stdout.splitlines(),
    reason="needs Debian's php-cli and php-curl",
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


class Page:
    """The page's text, and its samples by what they begin and end with."""

    def __init__(self, text: str) -> None:
        self.python_chat, self.python_image = re.findall(
            r"^import requests\n.*?(?=^<\?php)", text, re.DOTALL | re.MULTILINE
        )
        self.php_chat, self.php_image = re.findall(r"^<\?php\n.*?^\?>\n", text, re.DOTALL | re.MULTILINE)
        self.python_image_input = _only(r"^#data with image input\n(data = \{\n.*?^\}\n)", text)
        self.php_image_input = _only(r"^//data with image input\n(\$data = \[\n.*?^\];\n)", text)
        self.curl_poll = _only(r"^(curl -X POST .*?\}')\n", text)


@dataclass(frozen=True)
class Documented:
    """The gateway, a key for it, and what a user of MiniToolAI changes in a sample."""

    stack: Stack
    gateway: Process
    admin: Admin
    key: str

    def pointed_here(self, sample: str) -> str:
        """The sample with our URL and key in place of MiniToolAI's; both must be there."""
        assert UPSTREAM in sample
        return sample.replace(UPSTREAM, self.gateway.url).replace(SAMPLE_KEY, self.key)

    def emulators_own(self, body: object) -> str:
        """The text the emulator itself answers to a chat request."""
        return send(self.stack.emulator_url, CHAT, body, UPSTREAM_KEY).body.decode()

    def last_entry(self) -> tuple[str, int]:
        entry = self.admin.ledger()[-1]
        return entry["model"], entry["cost_nano_usd"]

    def last_claim(self) -> tuple[str, int]:
        line = self.stack.bill()["lines"][-1]
        return line["model"], line["claimed_nano_usd"]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(SEED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def here(stack: Stack) -> Iterator[Documented]:
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    yield Documented(stack, gateway, admin, admin.key("docs", "reader")["key"])
    admin.http.close()


def test_python_chat_read_whole(page: Page, here: Documented, tmp_path: Path) -> None:
    """The sample as it is: it prints the answer's text, and then the same once more by its lines."""
    printed = python(here.pointed_here(page.python_chat), tmp_path)
    assert printed_by_sample(here.emulators_own(CHAT_BODY)) == printed
    assert here.last_claim() == here.last_entry()


def test_python_chat_read_by_lines(page: Page, here: Documented, tmp_path: Path) -> None:
    """Without the line for the single result the same sample streams: each event as it comes."""
    by_lines = page.python_chat.replace("print(response.text) \n", "")
    assert by_lines != page.python_chat
    printed = python(here.pointed_here(by_lines), tmp_path)
    assert "\n".join([*lines_of(here.emulators_own(CHAT_BODY)), ""]) == printed


def test_python_chat_with_an_image(page: Page, here: Documented, tmp_path: Path) -> None:
    """The fragment "data with image input" takes the place of the sample's own data."""
    spliced = splice(page.python_chat, r"^data = \{\n.*?^\}\n", page.python_image_input)
    printed = python(here.pointed_here(spliced), tmp_path)
    assert printed_by_sample(here.emulators_own(IMAGE_INPUT_BODY)) == printed
    assert here.last_claim() == here.last_entry()


def test_python_image_and_its_poll_by_curl(page: Page, here: Documented, tmp_path: Path) -> None:
    """The submission prints the documented answer; its jobid and signature go into the documented poll, which has
    no Authorization header, and lead to the picture."""
    printed = python(here.pointed_here(page.python_image), tmp_path)
    assert_is_a_submission(printed, here)
    if shutil.which("curl") is None:
        pytest.skip("the poll needs curl")
    assert_ends_in_a_picture(json.loads(printed), page, here)


@needs_curl
def test_a_poll_for_a_job_that_was_never_submitted_is_refused(page: Page, here: Documented) -> None:
    """The documented poll with its placeholder values names no job of this gateway."""
    answer = json.loads(shell(page.curl_poll.replace(UPSTREAM, here.gateway.url)))
    assert ("error", "job_not_found") == (answer["status"], answer["error"]["code"])


@needs_php
@pytest.mark.debian
def test_php_chat(page: Page, here: Documented, tmp_path: Path) -> None:
    """PHP's sample writes the bytes through as curl delivers them, so all of them must be the emulator's."""
    printed = php(here.pointed_here(page.php_chat), tmp_path)
    assert here.emulators_own(CHAT_BODY) == without_notices(printed)
    assert here.last_claim() == here.last_entry()


@needs_php
@pytest.mark.debian
def test_php_chat_with_an_image(page: Page, here: Documented, tmp_path: Path) -> None:
    """The PHP fragment in the place of the sample's own data."""
    spliced = splice(page.php_chat, r"^\$data = \[\n.*?^\];\n", page.php_image_input)
    printed = php(here.pointed_here(spliced), tmp_path)
    assert here.emulators_own(IMAGE_INPUT_BODY) == without_notices(printed)
    assert here.last_claim() == here.last_entry()


@needs_php
@needs_curl
@pytest.mark.debian
def test_php_image_and_its_poll_by_curl(page: Page, here: Documented, tmp_path: Path) -> None:
    """The same job, submitted by PHP."""
    printed = php(here.pointed_here(page.php_image), tmp_path)
    assert_is_a_submission(printed, here)
    assert_ends_in_a_picture(json.loads(printed), page, here)


def assert_is_a_submission(printed: str, here: Documented) -> None:
    """The emulator's own bytes, but for the pair that is new with every job; and one image in the books."""
    body = {"model": "realvision", "prompt": "The emulator's own"}
    own = send(here.stack.emulator_url, IMAGES, body, UPSTREAM_KEY).body.decode()
    mine, theirs = json.loads(printed), json.loads(own)
    own = own.replace(str(theirs["jobid"]), str(mine["jobid"])).replace(theirs["signature"], mine["signature"])
    assert own == printed.rstrip("\n")
    assert ("realvision", 1_500_000) == here.last_entry()


def assert_ends_in_a_picture(job: dict[str, object], page: Page, here: Documented) -> None:
    """Poll by the documented command, as often as it says it is still working."""
    poll = page.curl_poll.replace(UPSTREAM, here.gateway.url)
    poll = poll.replace("12345678", str(job["jobid"])).replace("abcxyz123", str(job["signature"]))
    assert "uthorization" not in poll
    answer = json.loads(shell(poll))
    while answer["status"] == "processing":
        answer = json.loads(shell(poll))
    assert ("success", "success") == (answer["status"], answer["message"])
    picture = here.stack.emulator.get(answer["image_url"], headers=bearer(UPSTREAM_KEY))
    assert b"\x89PNG\r\n\x1a\n" == picture.content[:8]


def splice(sample: str, pattern: str, fragment: str) -> str:
    """The sample with the fragment where the pattern matches, once."""
    spliced, times = re.subn(pattern, lambda _: fragment, sample, flags=re.DOTALL | re.MULTILINE)
    assert 1 == times
    return spliced


def printed_by_sample(answer: str) -> str:
    """What the whole Python sample prints of an answer: its text, and (requests keeps it) its lines again."""
    return "\n".join([answer, *lines_of(answer), ""])


def lines_of(text: str) -> list[str]:
    """The lines that hold something, as the sample's loop prints them."""
    return [line for line in text.splitlines() if line]


def without_notices(printed: str) -> str:
    """What the sample wrote. PHP without an output buffer remarks on the sample's own ob_flush(); that is not ours."""
    return re.sub(r"\n?(PHP )?(Notice|Deprecated): .*? on line \d+\n", "", printed)


def python(code: str, folder: Path) -> str:
    path = folder / "sample.py"
    path.write_text(code, encoding="utf-8")
    return run([sys.executable, str(path)])


def php(code: str, folder: Path) -> str:
    path = folder / "sample.php"
    path.write_text(code, encoding="utf-8")
    return run(["php", "-d", "display_errors=0", "-d", "log_errors=0", str(path)])


def shell(command: str) -> str:
    """Run a documented command line as it is typed."""
    return run(["sh", "-c", command])


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout.decode()


def _only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return str(found)
