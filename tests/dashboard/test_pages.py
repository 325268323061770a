"""What the pages show: the ledger's figures, to the nano-dollar, and to each visitor no more than their own."""

import html
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.store.embedded import EmbeddedRedis
from tests.dashboard.conftest import Visit, logged_in, nano_usd_in
from tests.stack import ADMIN_KEY, Admin, Process, Stack, bearer, chat, running_stack

EVIL = "<img src=x onerror=alert(1)>\"'&"
KEYS = {
    "notebook": ("red", "an", "member"),
    "script": ("red", None, "member"),
    "red-lead": ("red", "mai", "team_admin"),
    "desk": ("blue", "binh", "member"),
    "books": ("blue", None, "auditor"),
}


@pytest.fixture(scope="module")
def keys(admin: Admin, gateway: Process) -> dict[str, str]:
    """Two teams with traffic: chats, an image, an estimate, refusals; the secrets by the keys' ids."""
    budgets = [{"window": "month", "limit_usd": "2.50"}, {"window": "total", "limit_usd": "0.00"}]
    admin.post("/teams", {"id": "red", "name": EVIL, "budgets": budgets[:1]})
    admin.post("/teams", {"id": "blue", "name": "Blue", "limits": {"requests_per_minute": 100}})
    admin.post("/teams", {"id": "broke", "budgets": budgets})
    secrets = {
        key: admin.key(team, user, id=key, role=role, name=f"{EVIL} of {key}")["key"]
        for key, (team, user, role) in KEYS.items()
    }
    secrets["broke"] = admin.key("broke", id="broke")["key"]
    for key, path, body in (
        ("notebook", "chat-completions", chat("one")),
        ("notebook", "chat-completions", chat("two", model="gpt-4.1-nano")),
        ("script", "chat-completions", chat("three [[fault:no_usage]]")),
        ("desk", "texttoimage", {"model": "realvision", "prompt": "a fox"}),
        ("desk", "chat-completions", chat("[[fault:status=500]]")),
        ("desk", "chat-completions", chat("four", model="no-such-model")),
        ("broke", "chat-completions", chat("five")),
        ("broke", "chat-completions", chat("six")),
    ):
        httpx.post(f"{gateway.url}/api/{path}/", json=body, headers=bearer(secrets[key]), timeout=30)
    return secrets


@pytest.fixture
def spent(admin: Admin, keys: dict[str, str]) -> list[dict[str, Any]]:
    """All entries there are at this moment."""
    return admin.ledger()


@pytest.fixture(scope="module")
def boss(gateway: Process, keys: dict[str, str]) -> Visit:
    return logged_in(gateway.url, ADMIN_KEY)


def cost(entries: list[dict[str, Any]], **of: str) -> int:
    return sum(entry["cost_nano_usd"] for entry in entries if all(entry[name] == value for name, value in of.items()))


def refusals_on(page: str) -> dict[str, int]:
    rows = re.findall(r'<tr data-code="(\w+)">.*?class="number">(\d+)<', page, re.DOTALL)
    return {code: int(calls) for code, calls in rows}


@pytest.mark.parametrize("language", ["en", "vi", "he"])
@pytest.mark.parametrize(
    ("path", "of"),
    [
        ("", {}),
        ("/teams/red", {"team": "red"}),
        ("/users/an", {"user": "an"}),
        ("/keys/notebook", {"key": "notebook"}),
        ("/keys/desk", {"key": "desk"}),
    ],
)
def test_the_figures_are_the_ledgers(
    boss: Visit, spent: list[dict[str, Any]], language: str, path: str, of: dict[str, str]
) -> None:
    """Tiles, days, models and requests of every scope, in every language."""
    page = boss.page(path, lang=language)
    assert f'<html lang="{language}" dir="{"rtl" if language == "he" else "ltr"}">' in page
    total = cost(spent, **of)
    today, month, held = nano_usd_in(page, '<section class="tiles".*?</section>')
    assert (total, total, 0) == (today, month, held)
    days = nano_usd_in(page, '<details id="by-day-table".*?</tbody>')[0::2]
    assert (30, total, total) == (len(days), sum(days), days[0])
    assert {total} == set(nano_usd_in(page, '<p class="sum">.*?</p>'))
    models = re.findall(r'<tr data-model="([^"]+)">.*?data-nano="(\d+)"', page, re.DOTALL)
    by_model = {model: cost(spent, model=model, **of) for model in {entry["model"] for entry in spent}}
    assert {model: amount for model, amount in by_model.items() if amount} == {
        model: int(amount) for model, amount in models if amount != "0"
    }
    own = [entry for entry in spent if all(entry[name] == value for name, value in of.items())]
    shown = re.findall(r'<tr data-entry="([^"]+)">.*?data-nano="(-?\d+)"', page, re.DOTALL)
    assert [(entry["id"], str(entry["cost_nano_usd"])) for entry in reversed(own)] == shown


def test_a_budget_is_spent_held_and_left(
    boss: Visit, spent: list[dict[str, Any]], stack: Stack, gateway: Process, keys: dict[str, str], admin: Admin
) -> None:
    """The three make up the limit while a call runs, and each is admission's own number."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            httpx.post,
            f"{gateway.url}/api/chat-completions/",
            json=chat("[[fault:withhold]]"),
            headers=bearer(keys["notebook"]),
            timeout=30,
        )
        stack.emulator.get("/__withheld", params={"at_least": "1"})
        (hold,) = admin.get("/holds")["data"]
        amounts = nano_usd_in(boss.page("/teams/red"), '<article class="one-budget">.*?</article>')
        stack.emulator.post("/__release")
        assert 200 == call.result().status_code
    red = cost(spent, team="red")
    assert [red, hold["hold_nano_usd"], 2_500_000_000 - red - hold["hold_nano_usd"]] == amounts
    assert hold["hold_nano_usd"] > 0


def test_the_organisations_budget_is_first_for_those_who_may_see_it(
    boss: Visit, spent: list[dict[str, Any]], gateway: Process, keys: dict[str, str], admin: Admin
) -> None:
    """Spent, held and left of it begin the overview; a member's and a team administrator's pages have no bar of it."""
    admin.patch("/organisations/default", {"name": "Acme", "budgets": [{"window": "total", "limit_usd": "7.50"}]})
    try:
        first = nano_usd_in(boss.page(), '<article class="one-budget">.*?</article>')
        others = [logged_in(gateway.url, keys[key]).page() for key in ("notebook", "red-lead")]
    finally:
        admin.patch("/organisations/default", {"name": "", "budgets": []})
    assert [cost(spent), 0, 7_500_000_000 - cost(spent)] == first
    assert [False, False] == ["Acme" in page or "7.50" in page for page in others]


def test_names_are_text(boss: Visit, keys: dict[str, str]) -> None:
    """Whoever may name a team or a key must not run code in an administrator's browser."""
    for path in ("", "/teams", "/keys", "/teams/red", "/keys/notebook"):
        page = boss.page(path)
        assert "<img src=x" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in page
    assert EVIL in html.unescape(boss.page("/teams/red"))


def test_refusals_are_counted_by_reason(gateway: Process, boss: Visit, keys: dict[str, str]) -> None:
    """With their codes; a moment after they happened, which is waited for here."""
    for path, expected in (
        ("/teams/broke", {"budget_exceeded": 2}),
        ("/users/binh", {"model_not_found": 1}),
        ("", {"budget_exceeded": 2, "model_not_found": 1}),
        ("/teams/red", {}),
    ):
        tries = iter(range(200))
        while (shown := refusals_on(boss.page(path))) != expected and next(tries, None) is not None:
            pass  # they are written once a second; a page takes its time, too
        assert expected == shown


def test_lists_show_what_each_one_spent(boss: Visit, spent: list[dict[str, Any]]) -> None:
    """One row each, with its state; those without a call too."""
    for name, field in (("teams", "team"), ("users", "user"), ("keys", "key")):
        page = boss.page(f"/{name}")
        rows = re.findall(rf'href="/dashboard/{name}/([a-z-]+)\?days=30"><bdi>.*?data-nano="(\d+)"', page, re.DOTALL)
        assert {row_id: cost(spent, **{field: row_id}) for row_id, _ in rows} == {
            row_id: int(amount) for row_id, amount in rows
        }
        assert {entry[field] for entry in spent if entry[field]} <= {row_id for row_id, _ in rows}


def test_a_long_list_has_pages(admin: Admin, boss: Visit) -> None:
    """Each of its rows stands on one of them."""
    admin.post("/teams", {"id": "crowd"})
    for number in range(101):
        admin.post("/users", {"id": f"crowd-{number:03}", "team": "crowd"})
    seen: list[str] = []
    after = ""
    for _ in range(9):
        page = boss.page("/users", **({"after": after} if after else {}))
        seen += re.findall(r'<th scope="row"><a href="/dashboard/users/([a-z0-9-]+)\?', page)
        following = re.search(r'href="\?after=([a-z0-9-]+)&amp;', page)
        if following is None:
            break
        after = following[1]
    assert sorted(set(seen)) == seen
    assert [f"crowd-{number:03}" for number in range(101)] == [user for user in seen if user.startswith("crowd")]
    page = boss.page("/teams/crowd")
    assert 50 == len(re.findall(r'<th scope="row"><a href="/dashboard/users/crowd-', page))
    assert 'href="/dashboard/users?days=30&amp;team=crowd"' in page
    listed = boss.page("/users", team="crowd") + boss.page("/users", team="crowd", after="crowd-099")
    assert 101 == len(re.findall(r'<th scope="row"><a href="/dashboard/users/crowd-', listed))
    assert '<th scope="row"><a href="/dashboard/users/an' not in listed


def test_another_language_shows_the_same_list(boss: Visit) -> None:
    """The same team's, from the same place on, over the same days."""
    page = boss.page("/users", team="crowd", after="crowd-049", days="7")
    links = re.findall(r'<a href="([^"]+)" lang="(\w+)"', page)
    assert [(f"?lang={code}&days=7&after=crowd-049&team=crowd", code) for code in ("en", "vi", "he")] == [
        (html.unescape(link), code) for link, code in links
    ]


@pytest.mark.parametrize(
    ("key", "opens", "home"),
    [
        ("notebook", {"/users/an", "/keys/notebook"}, {"key": "notebook"}),
        ("script", {"/keys/script"}, {"key": "script"}),
        (
            "red-lead",
            {
                "/users",
                "/keys",
                "/teams/red",
                "/users/an",
                "/users/mai",
                "/keys/notebook",
                "/keys/script",
                "/keys/red-lead",
            },
            {"team": "red"},
        ),
    ],
)
def test_a_visitor_sees_their_own(
    gateway: Process, keys: dict[str, str], spent: list[dict[str, Any]], key: str, opens: set[str], home: dict[str, str]
) -> None:
    """And of everything else not even whether it is there; never what the whole organisation spends."""
    visit = logged_in(gateway.url, keys[key])
    places = {"/teams", "/users", "/keys", "/teams/red", "/teams/blue", "/users/an", "/users/mai", "/users/binh"}
    places |= {f"/keys/{one}" for one in KEYS} | {
        "/teams/none-such",
        "/keys/none-such",
        "/organisation",
        "/teams/default",
    }
    found = {path: visit.http.get(f"/dashboard{path}") for path in sorted(places)}
    assert opens == {path for path, answer in found.items() if answer.status_code == 200}
    assert {404} == {answer.status_code for path, answer in found.items() if path not in opens}
    assert 1 == len({answer.text for path, answer in found.items() if path not in opens})
    first = visit.page()
    assert cost(spent, **home) == nano_usd_in(first, '<section class="tiles".*?</section>')[1]
    everything = str(cost(spent))
    for text in (first, *(found[path].text for path in opens)):
        assert f'data-nano="{everything}"' not in text
        assert "blue" not in text.lower()
        assert "binh" not in text


def test_an_auditor_sees_everything(gateway: Process, keys: dict[str, str], spent: list[dict[str, Any]]) -> None:
    """As the administrator does, but for the forms: there is nothing to change on these pages."""
    visit = logged_in(gateway.url, keys["books"])
    assert cost(spent) == nano_usd_in(visit.page(), '<p class="sum">.*?</p>')[0]
    assert 200 == visit.http.get("/dashboard/teams/red").status_code
    forms = re.findall(r'<form[^>]* action="([^"]+)"', visit.page() + visit.page("/teams/red"))
    assert {"/dashboard/logout"} == set(forms)


def test_a_language_once_chosen_stays(gateway: Process, keys: dict[str, str]) -> None:
    """Over the login and all pages; before, the browser's wish counts."""
    visit = Visit(gateway.url, **{"accept-language": "vi-VN,vi;q=0.9"})
    assert '<html lang="vi" dir="ltr">' in visit.http.get("/dashboard/login").text
    assert '<html lang="he" dir="rtl">' in visit.http.get("/dashboard/login", params={"lang": "he"}).text
    visit.log_in(keys["notebook"])
    assert '<html lang="he" dir="rtl">' in visit.page()
    assert '<html lang="he" dir="rtl">' in visit.http.get("/dashboard/none/such").text
    assert '<html lang="en" dir="ltr">' in visit.page(lang="en")


@pytest.mark.parametrize("params", [{"days": "x"}, {"days": "31"}, {"lang": "xx"}, {"lang": "../he"}, {"unknown": "1"}])
def test_an_odd_address_shows_the_usual_page(boss: Visit, params: dict[str, str]) -> None:
    """People share and edit addresses."""
    assert 30 == len(nano_usd_in(boss.page(**params), '<details id="by-day-table".*?</tbody>')) // 2


@pytest.mark.parametrize(
    ("path", "status"), [("/users?after=A%20B", 400), ("/keys/A%20B", 404), ("/static/none.js", 404)]
)
def test_a_wrong_address_is_a_page_too(boss: Visit, path: str, status: int) -> None:
    """In words, with a way back."""
    answer = boss.http.get(f"/dashboard{path}")
    assert (status, True) == (answer.status_code, 'href="/dashboard"' in answer.text)


def test_the_overview_shows_what_stands_out_among_many_teams(admin: Admin, boss: Visit) -> None:
    """The last team by id and the dearest are there, and a sentence says by what the fifty were chosen."""
    for number in range(51):
        admin.post("/teams", {"id": f"a-{number:02}"})
    for number in range(9):
        admin.post(
            "/teams", {"id": f"z-{number}", "name": "Ünder", "budgets": [{"window": "day", "limit_usd": "0.00"}]}
        )
    page = boss.page(lang="en")
    assert "The 50 that spent the most this month." in page
    assert 'href="/dashboard/teams/blue?' in page.split('id="children-team"')[1]
    assert re.search(r"\d+ budgets of teams are nearly used up; the fullest are shown\.", page)
    assert 8 == len(re.findall('<article class="one-budget">', page))
    assert "Ünder" in page
    assert "The first 50 by id." in boss.page("/teams/crowd")


def test_without_its_ledger_the_dashboard_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    """To who is logged in and to who wants to; in their language, and without a stack."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("ends"))
    server.start()
    try:
        with running_stack(server.url) as stack:
            visit = logged_in(stack.gateway(redis_timeout_s="1").url, ADMIN_KEY, **{"accept-language": "he"})
            server.stop()
            for answer in (visit.http.get("/dashboard"), visit.log_in(ADMIN_KEY), visit.http.post("/dashboard/logout")):
                assert 503 == answer.status_code
                assert "אין גישה לספר החשבונות" in answer.text
    finally:
        server.stop()
