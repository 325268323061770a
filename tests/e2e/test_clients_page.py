"""The samples of docs/clients.md, run as they stand there but for URL and key."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.npm_client import MODULES, needs_npm_client
from tests.e2e.openai_face import Face
from tests.stack import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8080"
KEY = "sk-mt-your-key"

needs_php = pytest.mark.skipif(
    shutil.which("php") is None
    or b"curl" not in subprocess.run(["php", "-m"], capture_output=True, check=False).stdout.splitlines(),
    reason="needs Debian's php-cli and php-curl",
)


def samples(heading: str) -> list[str]:
    """The blocks of code under a heading, in their order."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def pointed_here(sample: str, face: Face, key: str) -> str:
    """With our URL and key; both must be there."""
    assert URL in sample
    assert KEY in sample
    return sample.replace(URL, face.gateway.url).replace(KEY, key)


def printed(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (0, b"") == (done.returncode, done.stderr)
    return done.stdout.decode()


def charged(face: Face, key_id: str) -> list[str]:
    """The models of a key's charges, each to the nano-dollar what the emulator billed."""
    entries = face.admin.ledger(key=key_id)
    bill = {line["request_id"]: line["claimed_nano_usd"] for line in face.stack.bill()["lines"]}
    assert [] == [entry for entry in entries if entry["cost_nano_usd"] != bill.get(entry["request_id"])]
    return [entry["model"] for entry in entries]


def test_the_python_samples(face: Face, tmp_path: Path) -> None:
    """A whole answer and its cost, a stream, a picture, and a refusal that says what it is."""
    made = face.admin.key("clients", models=["gpt-4o-mini", "dreamshaper"])
    (sample,) = samples("Python")
    script = tmp_path / "sample.py"
    script.write_text(pointed_here(sample, face, made["key"]), encoding="utf-8")
    lines = printed([sys.executable, str(script)]).splitlines()
    assert re.fullmatch(r"cost in dollars: 0\.\d+", lines[1])
    assert lines[-2].startswith("http")
    assert lines[-1].startswith("403 model_not_allowed ")
    assert ["gpt-4o-mini", "gpt-4o-mini", "dreamshaper"] == charged(face, made["id"])


def test_the_langchain_sample(face: Face, tmp_path: Path) -> None:
    """Asked and streamed."""
    made = face.admin.key("clients")
    (sample,) = samples("LangChain")
    script = tmp_path / "sample.py"
    script.write_text(pointed_here(sample, face, made["key"]), encoding="utf-8")
    assert "'total_tokens'" in printed([sys.executable, str(script)])
    assert ["gpt-4o-mini"] * 2 == charged(face, made["id"])


@needs_npm_client
@pytest.mark.debian
def test_the_node_sample(face: Face, tmp_path: Path) -> None:
    """Asked and streamed."""
    made = face.admin.key("clients")
    (sample,) = samples("Node")
    script = tmp_path / "sample.mjs"
    script.write_text(pointed_here(sample, face, made["key"]), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(MODULES)
    assert 2 <= len(printed(["node", str(script)]).splitlines())
    assert ["gpt-4o-mini"] * 2 == charged(face, made["id"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_samples(face: Face) -> None:
    """One object, a stream, an estimate and what is left; two of them cost something."""
    made = face.admin.key("clients")
    whole, stream, estimate, left = [
        printed(["sh", "-c", pointed_here(sample, face, made["key"])]) for sample in samples("curl")
    ]
    assert '"object":"chat.completion"' in whole
    assert stream.endswith("data: [DONE]\n\n")
    assert '"admitted":true' in estimate
    assert '"scopes":' in left
    assert ["gpt-4o-mini"] * 2 == charged(face, made["id"])


@needs_php
@pytest.mark.debian
def test_the_php_sample(face: Face, tmp_path: Path) -> None:
    """The answer's text; and where there is none, why."""
    made = face.admin.key("clients", budgets=[{"window": "total", "limit_usd": "0.001"}])
    (sample,) = samples("PHP")
    script = tmp_path / "sample.php"
    script.write_text(pointed_here(sample, face, made["key"]), encoding="utf-8")
    assert len(printed(["php", str(script)])) > 1
    assert ["gpt-4o-mini"] == charged(face, made["id"])
    face.admin.patch(f"/keys/{made['id']}", {"budgets": [{"window": "total", "limit_usd": "0.00"}]})
    assert "of its $0.00" in printed(["php", str(script)])


def test_every_sample_names_the_url_and_the_key_of_the_page() -> None:
    """Whoever pastes one replaces the same two everywhere."""
    headings = ("Python", "LangChain", "LlamaIndex", "Node", "curl", "PHP")
    for sample in [sample for heading in headings for sample in samples(heading)]:
        assert URL in sample
        assert KEY in sample
