"""The usage report in its three forms."""

import json

import pytest

from gateway.cli.main import main
from tests.cli.fake_control_plane import FakeControlPlane

REPORT = {
    "data": [
        {
            "team": "research",
            "model": "gpt-4o-mini",
            "requests": 3,
            "prompt_tokens": 51,
            "completion_tokens": 9,
            "images": 0,
            "cost_nano_usd": 13050,
            "cost_usd": "0.00001305",
            "estimated_nano_usd": 0,
        }
    ],
    "total": {"requests": 3, "cost_nano_usd": 13050, "cost_usd": "0.00001305", "estimated_nano_usd": 0},
}


def test_the_table_ends_in_the_total(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """The first question is what it all cost."""
    control_plane.answers("GET", "/admin/v1/usage", REPORT)
    assert 0 == main(["usage", "--from", "2026-11-01", "--to", "2026-11-30"])
    expected = {"group_by": "team,model", "from": "2026-11-01", "to": "2026-11-30"}
    assert expected == control_plane.requests[0].query
    heading, row, total = capsys.readouterr().out.splitlines()
    assert ["team", "model", "requests"] == heading.split()[:3]
    assert "research gpt-4o-mini 3 51 9 0 0.00001305 0.00" == " ".join(row.split())
    assert "total - 3 - - - 0.00001305 0.00" == " ".join(total.split())


def test_csv_has_every_column_and_no_total(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """A total among the rows would be summed once more by whoever reads the file."""
    control_plane.answers("GET", "/admin/v1/usage", REPORT)
    assert 0 == main(["usage", "--csv", "--group-by", "team,model"])
    assert capsys.readouterr().out == (
        "team,model,requests,prompt_tokens,completion_tokens,images,cost_nano_usd,cost_usd,estimated_nano_usd\n"
        "research,gpt-4o-mini,3,51,9,0,13050,0.00001305,0\n"
    )


def test_a_report_by_tag_has_no_total(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """A call counts under each of its tags: what the rows add up to is nobody's spending."""
    rows = [{"tag": tag, "requests": 2, "cost_usd": "0.01"} for tag in ("env=prod", "project=fox")]
    control_plane.answers("GET", "/admin/v1/usage", {"data": rows, "total": None})
    assert 0 == main(["usage", "--group-by", "tag"])
    assert {"group_by": "tag"} == control_plane.requests[0].query
    heading, *lines = capsys.readouterr().out.splitlines()
    assert ["tag", "requests", "cost", "usd"] == heading.split()
    assert ["env=prod 2 0.01", "project=fox 2 0.01"] == [" ".join(line.split()) for line in lines]


def test_json_is_the_report_itself(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left out for scripts."""
    control_plane.answers("GET", "/admin/v1/usage", REPORT)
    assert 0 == main(["usage", "--json"])
    assert REPORT == json.loads(capsys.readouterr().out)


def test_no_usage_is_said_in_words(control_plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty report has no rows and so no columns."""
    control_plane.answers("GET", "/admin/v1/usage", {"data": [], "total": {"requests": 0}})
    assert 0 == main(["usage"])
    assert "Nothing that you may see was used in this period.\n" == capsys.readouterr().out
