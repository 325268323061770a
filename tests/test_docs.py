"""Documentation that is checked: what the code has and the docs lack, or the other way round, fails here."""

import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC
from pathlib import Path

import pytest

from gateway.billing import ledger
from gateway.billing.budget import Calendar
from gateway.billing.errors import GatewayError
from gateway.billing.ledger import Entry
from gateway.call_log import CallRecord
from gateway.cli.main import COMMANDS
from gateway.emulator.faults import FAULTS
from gateway.metrics import Metrics
from gateway.settings import Settings, environment_name
from gateway.store.packed import _HOLD_NUMBERS, _NUMBERS
from gateway.web.books import entry_json

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def test_every_setting_stands_with_its_variable_and_default() -> None:
    """A default that the docs have wrong is worse than one they do not have."""
    documented = {row[0]: (row[1], row[2]) for row in rows(DOCS / "settings.md") if row[0] in names_of(Settings)}
    expected = {field.name: (environment_name(field.name), shown(field.default)) for field in fields(Settings)}
    assert expected == documented


def test_every_metric_is_documented_with_its_labels() -> None:
    """Dashboards and alerts are written from that table."""
    documented = {row[0]: (row[1], set(re.findall(r"\w+", row[2]))) for row in rows(DOCS / "metrics.md")}
    expected = {}
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        expected[name] = (family.type, set(family._labelnames))  # type: ignore[attr-defined]  # shown nowhere else
    assert expected == {name: about for name, about in documented.items() if name.startswith("gateway_")}


def test_every_error_code_is_documented_with_its_status_and_type() -> None:
    """Scripts branch on the code; whoever writes one looks here."""
    documented = {(row[1], row[0], row[2]) for row in rows(DOCS / "errors.md") if row[0].isdigit()}
    assert {(error.code, str(error.status), error.type) for error in error_classes()} == documented


def test_every_field_of_an_entry_is_documented() -> None:
    """So are its types and flags: the ledger is read by people who did not write it."""
    text = (DOCS / "ledger.md").read_text(encoding="utf-8")
    entry = Entry("1-0", 0, 0, "capture", "h", 1, "r", "o", "t", None, "k", "chat", "m", 1, 1, 0, "upstream", "v")
    flags = {ledger.ESTIMATED, ledger.UNANSWERED, ledger.ANOMALY, ledger.OVERRUN}
    assert set() == {name for name in [*entry_json(entry, Calendar(UTC)), *flags] if f"`{name}`" not in text}


def test_every_field_of_the_log_line_is_documented(caplog: pytest.LogCaptureFixture) -> None:
    """At three in the morning nobody reads code."""
    with caplog.at_level(logging.INFO, logger="gateway.call"):
        Metrics().observe(CallRecord("/api/chat-completions/", "req-1", time.perf_counter()))
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert set() == {name for name in json.loads(caplog.records[0].message) if f"`{name}`" not in text}


def test_every_fault_of_the_emulator_is_documented() -> None:
    """And no other: one that is asked for and not known is a 400."""
    assert set(FAULTS) == {row[0] for row in rows(DOCS / "emulator.md", "Faults on request")}


def test_the_layouts_have_the_sizes_that_are_documented() -> None:
    """ADR 0003 is what someone holds against a hex dump."""
    text = (DOCS / "adr" / "0003-packed-scope.md").read_text(encoding="utf-8")
    assert (248, 120) == (_NUMBERS.size, _HOLD_NUMBERS.size)
    assert "| 248 | | soft thresholds" in text
    assert "| 120 | | JSON" in text


def test_every_decision_is_listed_and_has_its_parts() -> None:
    """A decision nobody can find is made again."""
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    for path in sorted((DOCS / "adr").glob("0*.md")):
        assert f"]({path.name})" in index
        text = path.read_text(encoding="utf-8")
        parts = re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE)
        assert ["Context", "Options", "Decision", "Consequences", "What would change our mind"] == parts, path.name


def test_links_and_paths_lead_somewhere() -> None:
    """Files move; sentences about them stay."""
    broken = []
    for page in [
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "CHANGELOG.md",
        ROOT / "examples" / "README.md",
        *DOCS.rglob("*.md"),
    ]:
        text = page.read_text(encoding="utf-8")
        targets = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
        paths = re.findall(r"`((?:gateway|tests|benchmarks|config|deploy|docs|examples)/[\w./-]*)`", text)
        # What deploy/make-secrets makes is in no checkout.
        targets += [ROOT / path for path in paths if not path.startswith("deploy/secrets/")]
        broken += [f"{page.relative_to(ROOT)}: {target}" for target in targets if not target.exists()]
    assert [] == broken


def test_every_command_that_is_shown_exists() -> None:
    """`./run X` in a document is typed as it stands."""
    tools = {"test", "bench", "fuzz", "check", "fmt", "lock"}
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md", *DOCS.rglob("*.md")]
    shown_names = {
        name for page in pages for name in re.findall(r"(?:\./run|`gateway) ([a-z]+)", page.read_text(encoding="utf-8"))
    }
    assert set() == shown_names - set(COMMANDS) - tools


def rows(page: Path, heading: str = "") -> Iterator[list[str]]:
    """The cells of every table row below a heading (or on the whole page), backquotes taken off."""
    text = page.read_text(encoding="utf-8")
    if heading:
        text = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") or re.match(r"\| \d", line):
            yield cells


def names_of(settings: type[Settings]) -> set[str]:
    return {field.name for field in fields(settings)}


def shown(default: object) -> str:
    """A default as the environment would give it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return str(int(default)) if default == int(default) else str(default)
    if isinstance(default, tuple):
        return ", ".join(default) or "empty"
    return str(default) or "empty"


def error_classes() -> Iterator[type[GatewayError]]:
    pending: list[type[GatewayError]] = [GatewayError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__.startswith("gateway."):  # not those that other tests make up
            yield error
