"""`gateway apply`: a real gateway is made as a file says, the difference first, nothing twice, nothing by halves."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.main import main
from gateway.store.embedded import EmbeddedRedis
from tests.stack import ADMIN_KEY, Admin, Stack, bearer, chat, running_stack

Apply = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With a Redis of its own: what one test made is there for the next, under other names."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    with running_stack(server.url) as running:
        yield running
    server.stop()


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    return stack.gateway().url


@pytest.fixture
def admin(url: str) -> Admin:
    return Admin(url)


@pytest.fixture
def apply(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Apply:
    """Applies a text; gives the exit code and what was printed on stdout and stderr."""
    monkeypatch.setenv("GATEWAY_URL", url)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN_KEY)

    def run(text: str, *options: str) -> tuple[int, str]:
        file = tmp_path / "organisation.toml"
        file.write_text(text)
        capsys.readouterr()
        code = main(["apply", str(file), *options])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_the_sample_makes_an_organisation_whose_keys_work(
    repository: Path, stack: Stack, url: str, admin: Admin, apply: Apply
) -> None:
    """As it is shipped; the second time there is nothing to do."""
    sample = (repository / "config" / "organisation.toml").read_text()
    code, printed = apply(sample, "--yes")
    assert 0 == code, printed
    assert "5 to create, 1 to change, 0 as the file says." in printed
    secret = re.findall(r"^sk-mt-\S+$", printed, re.MULTILINE)[0]
    assert 200 == httpx.post(f"{url}/api/chat-completions/", headers=bearer(secret), json=chat()).status_code
    assert ["gpt-4o-mini", "gpt-4.1-nano"] == admin.get("/teams/support")["models"]
    assert "2027-06-30T15:00:00Z" == admin.get("/keys/an-notebook")["expires_at"]
    assert [50, 80, 95] == admin.get("/organisations/default")["budgets"][0]["soft_percent"]
    again, printed = apply(sample)
    assert 0 == again
    assert "0 to create, 0 to change, 6 as the file says." in printed
    assert "sk-mt-" not in printed


def test_only_what_differs_is_changed(admin: Admin, apply: Apply) -> None:
    """What somebody else set in the meantime, and the file does not name, stays."""
    apply('[teams.lab]\nbudgets = [{window = "month", limit_usd = "5"}]\nlimits = {requests_per_minute = 9}', "--yes")
    admin.patch("/teams/lab", {"name": "Lab", "limits": {"images_per_minute": 3}, "models": ["gpt-4o"]})
    code, printed = apply(
        '[teams.lab]\nbudgets = [{window = "month", limit_usd = "7.50"}]\nlimits = {requests_per_minute = 10}\n'
        'models = "all"',
        "--yes",
    )
    assert 0 == code
    assert "~ team lab" in printed
    assert "budgets: month 5.00 → month 7.50" in printed
    assert "models: gpt-4o → all" in printed
    lab = admin.get("/teams/lab")
    assert "Lab" == lab["name"]
    assert {"requests_per_minute": 10} == lab["limits"]  # the table is meant whole
    assert "models" not in lab
    assert ["7.50"] == [budget["limit_usd"] for budget in lab["budgets"]]


def test_nothing_is_changed_unasked(admin: Admin, apply: Apply) -> None:
    """Neither with --check, nor where nobody can be asked, nor with --json alone."""
    text = '[teams.unasked]\nname = "U"'
    for options in (["--check"], [], ["--json"]):
        code, printed = apply(text, *options)
        assert 1 == code
        assert "unasked" in printed
    assert 404 == admin.http.get("/admin/v1/teams/unasked").status_code
    assert 0 == apply(text, "--yes")[0]
    assert 0 == apply(text, "--check")[0]


@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked(
    admin: Admin, apply: Apply, monkeypatch: pytest.MonkeyPatch, answer: str, made: bool
) -> None:
    """Enter alone is no."""
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", stdin)
    team = f"asked-{len(answer)}"
    code, _ = apply(f"[teams.{team}]")
    assert made == (code == 0)
    assert made == (admin.http.get(f"/admin/v1/teams/{team}").status_code == 200)


def test_json_has_the_difference_and_the_secrets(url: str, apply: Apply) -> None:
    """For a pipeline that hands the keys on."""
    text = '[teams.pipes]\n[keys.pipe-key]\nteam = "pipes"\nname = "P"'
    code, printed = apply(text, "--yes", "--json")
    report = json.loads(printed)
    assert 0 == code
    assert [("team", "pipes", None), ("key", "pipe-key", None)] == [
        (change["scope"], change["id"], change["before"]) for change in report["changes"]
    ]
    assert 2 == report["made"]
    (key,) = report["keys"]
    assert "pipe-key" == key["id"]
    assert 200 == httpx.get(f"{url}/v1/me", headers=bearer(key["key"])).status_code
    report = json.loads(apply(text, "--yes", "--json")[1])
    assert ([], 0, []) == (report["changes"], report["made"], report["keys"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[teams", "is not TOML"),
        ("[team.x]", "there is no table 'team'"),
        ("teams = 3", "teams must be a table"),
        ("[teams]\nx = 3", "teams.x must be a table"),
        ("[teams.X]", "team X: id must be 1 to 40"),
        ("[teams.x]\nbudget = 3", "team x: A team has no field 'budget'"),
        ('[teams.x]\nbudgets = [{window = "month", limit_usd = 2.5}]', "budgets[0].limit_usd"),
        ("[teams.x]\nlimits = {requests_per_minute = 0}", "limits.requests_per_minute must be a whole number"),
        ('[users.u]\nteam = "nowhere"', "user u: there is no team nowhere; name it in the file, too"),
        ("[users.u]", "user u: team is missing."),
        ("[teams.x]\n[keys.k]", "key k: team is missing."),
        (
            '[teams.x]\n[teams.y]\n[users.u]\nteam = "x"\n[keys.k]\nteam = "y"\nuser = "u"',
            "key k: user u is in team x, not in y",
        ),
        ('[teams.x]\n[keys.k]\nteam = "x"\nuser = "nobody"', "key k: there is no user nobody"),
        ('[teams.x]\n[keys.k]\nteam = "x"\nexpires_at = 2027-01-01T00:00:00', "RFC 3339 instant with its offset"),
        ('[organisation]\ntimezone = "UTC"', "organisation default: timezone never changes"),
        ('[organisation]\nid = "other"', "there is no organisation other"),
    ],
)
def test_a_wrong_file_changes_nothing(
    admin: Admin, apply: Apply, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    """Each is found before the first change, though other things in the file are right."""
    sound = '[teams.sound]\nname = "S"\n'
    code, printed = apply(text if text.startswith(("[teams", "teams")) else text + "\n" + sound, "--yes")
    assert 1 == code
    assert complaint in printed
    assert 404 == admin.http.get("/admin/v1/teams/sound").status_code
    assert 404 == admin.http.get("/admin/v1/teams/x").status_code


def test_what_never_changes_is_refused(admin: Admin, apply: Apply) -> None:
    """A user stays in a team, and a revoked key stays revoked."""
    admin.key("first", "ona", id="ona-key")
    admin.post("/teams", {"id": "second"})
    code, printed = apply('[users.ona]\nteam = "second"', "--yes")
    assert 1 == code
    assert "user ona: its team is first and never changes" in printed
    admin.http.delete("/admin/v1/keys/ona-key")
    code, printed = apply('[keys.ona-key]\nteam = "first"\nuser = "ona"', "--yes")
    assert 1 == code
    assert "key ona-key is revoked for good" in printed


def test_a_change_that_fails_half_way_says_how_far_it_came(
    admin: Admin, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway knows what the file cannot: here, whom a key may make administrator. The secret made before is told
    all the same."""
    as_team_admin(admin, monkeypatch, "half")
    text = (
        '[keys.a-good-one]\nteam = "half"\n'
        '[keys.b-bad-one]\nteam = "half"\nrole = "admin"\n[keys.c-never]\nteam = "half"'
    )
    code, printed = apply(text, "--yes")
    assert 1 == code
    assert 1 == len(re.findall(r"^sk-mt-\S+$", printed, re.MULTILINE))
    assert "key b-bad-one: " in printed
    assert "1 of 3 changes were made" in printed
    assert 404 == admin.http.get("/admin/v1/keys/c-never").status_code
    assert 0 == apply(text.replace('role = "admin"\n', ""), "--yes")[0]


def test_a_user_of_another_team_is_found_before_the_first_change(admin: Admin, apply: Apply) -> None:
    """Also where the file does not name the user, who exists already."""
    admin.key("elsewhere", "eva")
    code, printed = apply('[teams.near]\n[keys.evas]\nteam = "near"\nuser = "eva"', "--yes")
    assert 1 == code
    assert "key evas: user eva is in team elsewhere, not in near" in printed
    assert 404 == admin.http.get("/admin/v1/teams/near").status_code


def test_a_teams_administrator_applies_what_is_in_reach(
    admin: Admin, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The organisation is read only where the file names it: that role may not."""
    as_team_admin(admin, monkeypatch, "reach")
    code, printed = apply('[users.rosa]\nteam = "reach"\n[keys.rosas]\nteam = "reach"\nuser = "rosa"', "--yes")
    assert 0 == code, printed
    assert "rosa" == admin.get("/keys/rosas")["user"]
    code, printed = apply("[organisation]\nblocked = true", "--yes")
    assert 1 == code
    assert "permission_denied" in printed


def as_team_admin(admin: Admin, monkeypatch: pytest.MonkeyPatch, team: str) -> None:
    """What is applied from here on is asked for with a key of the team's administrator."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", admin.key(team, role="team_admin")["key"])


def test_what_the_file_does_not_name_is_told(admin: Admin, apply: Apply) -> None:
    """It is left alone, and not silently."""
    admin.post("/teams", {"id": "unlisted"})
    _, printed = apply("[teams.unlisted-not]", "--check")
    assert "team unlisted is not in the file and stays as it is" in printed
    changed: dict[str, Any] = admin.get("/teams/unlisted")
    assert "" == changed["name"]
