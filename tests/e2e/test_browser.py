"""The dashboard in a real browser: Debian's Chromium, with axe looking for what would keep people out."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from tests.stack import ADMIN_KEY, Admin, Process, Stack, bearer, chat

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)
EVIL = "<img src=x onerror=\"document.title='owned'\">"

pytestmark = [
    pytest.mark.debian,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(str(CHROMIUM)) is None, reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(timezone="Asia/Ho_Chi_Minh")


@pytest.fixture(scope="module")
def member(gateway: Process) -> str:
    """A key with a user, budgets at three scopes, charges, an estimate and refusals; its team has a wicked name, and
    stands among more teams than an overview shows."""
    admin = Admin(gateway.url)
    for number in range(51):
        budgets = [{"window": "month", "limit_usd": "0.00"}] if number < 9 else []
        admin.post("/teams", {"id": f"team-{number:02}", "budgets": budgets})
    admin.post("/teams", {"id": "red", "name": EVIL, "budgets": [{"window": "month", "limit_usd": "5.00"}]})
    admin.post("/users", {"id": "an", "team": "red", "budgets": [{"window": "week", "limit_usd": "0.50"}]})
    budgets = [{"window": "day", "limit_usd": "0.002"}]
    key: str = admin.key("red", "an", id="notebook", name=EVIL, budgets=budgets, limits={"images_per_minute": 3})["key"]
    for text, model in (
        ("one", "gpt-4o-mini"),
        ("two", "gpt-4.1-nano"),
        ("three [[fault:no_usage]]", "gpt-4o-mini"),
        ("four", "gpt-4o"),
        ("five", "no-such-model"),
    ):
        httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(text, model), headers=bearer(key), timeout=30)
    return key


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=WIDE)
    yield context
    context.close()


@pytest.mark.parametrize("language", ["en", "vi", "he"])
@pytest.mark.parametrize("who", ["administrator", "member"])
def test_a_visit(context: BrowserContext, gateway: Process, member: str, language: str, who: str) -> None:
    """Come in, look at everything there is to see, leave: nothing for axe to find, nothing for the console to say."""
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{gateway.url}/dashboard/login?lang={language}")
    look_at(page, language)
    page.locator("#key").fill(ADMIN_KEY if who == "administrator" else member)
    page.locator("#key").press("Enter")
    page.wait_for_url("**/dashboard")
    assert page.locator("#nearly-full").count() == (1 if who == "administrator" else 0)
    assert page.locator("nav.places a").count() == (4 if who == "administrator" else 2)
    for place in page.locator("nav.places a").evaluate_all("links => links.map(link => link.href)"):
        page.goto(place)
        look_at(page, language)
    page.goto(f"{gateway.url}/dashboard/keys/notebook?days=7")
    page.locator("#by-day-table summary").click()
    page.set_viewport_size(NARROW)
    look_at(page, language)
    assert EVIL in page.locator("h1").inner_text()
    page.locator("form.leave button").click()
    page.wait_for_url("**/dashboard/login")
    page.goto(f"{gateway.url}/dashboard")
    assert page.url.endswith("/dashboard/login")
    assert [] == complaints


def look_at(page: Page, language: str) -> None:
    """What holds of every page."""
    found = Axe().run(page)
    assert 0 == found.violations_count, found.generate_report()
    assert (language, "rtl" if language == "he" else "ltr") == tuple(
        page.locator("html").evaluate("html => [html.lang, html.dir]")
    )
    for size in (NARROW, WIDE):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert page.title() != "owned"
    assert 0 == page.locator("img[src=x]").count()


def test_hebrew_is_mirrored(context: BrowserContext, gateway: Process, member: str) -> None:
    """The name at the right, today's column at the left, budgets filled from the right."""
    page = log_in(context, gateway, member)
    places = {}
    for language in ("en", "he"):
        page.goto(f"{gateway.url}/dashboard?lang={language}")
        places[language] = [
            middle_x(page, selector)
            for selector in (".brand", ".columns:visible .column:last-of-type .value", ".one-budget .bar .spent")
        ]
    middle = page.evaluate("innerWidth") / 2
    assert [True, False, True] == [x < middle for x in places["en"]]
    assert [False, True, False] == [x < middle for x in places["he"]]


def test_figures_equal_the_ledgers(context: BrowserContext, gateway: Process, member: str) -> None:
    """What a person reads, and not only what the page's source says."""
    page = log_in(context, gateway, member)
    page.goto(f"{gateway.url}/dashboard?lang=en")
    spent = sum(entry["cost_nano_usd"] for entry in Admin(gateway.url).ledger(key="notebook"))
    shown = f"${spent / 1_000_000_000:.9f}".rstrip("0")
    assert shown == page.locator(".tile p").first.inner_text() == page.locator(".sum").inner_text()
    budget = page.locator(".one-budget").last
    assert "$0.002 today" in budget.inner_text()
    assert shown in budget.inner_text()
    left = f"${(2_000_000 - spent) / 1_000_000_000:.9f}".rstrip("0")
    assert left in budget.inner_text()


def test_the_page_works_without_javascript(browser: Browser, gateway: Process, member: str) -> None:
    """Everything is in the page itself; only the box that asks for refreshing is not offered."""
    context = browser.new_context(java_script_enabled=False)
    page = log_in(context, gateway, member)
    assert page.locator(".columns").first.is_visible()
    page.locator("#by-day-table summary").click()
    assert 31 == page.locator("#by-day-table tr:visible").count() - 1
    assert 0 == page.locator(".refresh").count()
    page.locator("form.leave button").click()
    page.wait_for_url("**/dashboard/login")
    context.close()


@pytest.mark.parametrize("language", ["en", "he"])
def test_a_key_is_made_with_the_keyboard_alone(
    context: BrowserContext, gateway: Process, member: str, language: str
) -> None:
    """From the user's page to the secret, which makes a call; loading the page again shows it to nobody."""
    page = log_in(context, gateway, ADMIN_KEY)
    page.goto(f"{gateway.url}/dashboard/users/an?lang={language}")
    page.locator(".offers a[href$='/new-key']").press("Enter")
    page.wait_for_url("**/users/an/new-key")
    look_at(page, language)
    page.keyboard.type("desk")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "submit":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the answer to a second one would be that this was done
    page.locator("#secret").wait_for()
    look_at(page, language)
    secret = page.locator("#secret").inner_text()
    call = httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(secret), timeout=30)
    assert (200, False) == (call.status_code, secret in page.url)
    page.reload()
    page.locator("[role=alert]").wait_for()
    look_at(page, language)
    assert secret not in page.content()
    assert "desk" == page.locator("#name").input_value()


def test_a_key_is_ended_without_javascript(browser: Browser, gateway: Process, member: str) -> None:
    """Blocked and unblocked with a button each, and revoked behind a page that asks."""
    Admin(gateway.url).key("red", id="ending")
    context = browser.new_context(java_script_enabled=False)
    page = log_in(context, gateway, ADMIN_KEY)
    page.goto(f"{gateway.url}/dashboard/keys/ending?lang=en")
    for button in ("Block", "Unblock"):
        page.get_by_role("button", name=button, exact=True).click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke for good").click()
    page.wait_for_url("**/dashboard/keys/ending")
    assert ["Revoked"] == page.locator("h1 .state").all_inner_texts()
    assert 0 == page.locator(".offers").count()
    context.close()


def test_a_page_refreshes_itself_when_asked(browser: Browser, gateway: Process, member: str) -> None:
    """New calls appear, opened tables stay open; a tooltip follows the pointer."""
    context = browser.new_context()
    context.clock.install()
    page = log_in(context, gateway, member)
    page.locator("#by-day-table summary").click()
    page.locator(".columns:visible .column").last.hover()
    assert re.fullmatch(r".+: .+", page.locator(".tip").inner_text())
    before = page.locator("#latest tbody tr").count()
    page.locator(".refresh input").check()
    httpx.post(f"{gateway.url}/api/chat-completions/", json=chat("more"), headers=bearer(member), timeout=30)
    context.clock.run_for(16_000)
    page.locator("#latest tbody tr").nth(before).wait_for()
    assert page.locator("#by-day-table").get_attribute("open") is not None
    assert page.locator(".refresh input").is_checked()
    context.close()


def test_refreshing_ends_at_the_login_when_the_session_does(browser: Browser, gateway: Process, member: str) -> None:
    """A page that stays as it was would be taken for the present."""
    context = browser.new_context()
    context.clock.install()
    page = log_in(context, gateway, member)
    page.locator(".refresh input").check()
    token = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "gateway-session")
    httpx.post(f"{gateway.url}/dashboard/logout", headers={"cookie": f"gateway-session={token}"})
    context.clock.run_for(16_000)
    page.wait_for_url("**/dashboard/login")
    context.close()


def log_in(context: BrowserContext, gateway: Process, key: str) -> Page:
    page = context.new_page()
    page.goto(f"{gateway.url}/dashboard/login")
    page.locator("#key").fill(key)
    page.locator("form button").click()
    page.wait_for_url("**/dashboard")
    return page


def middle_x(page: Page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2
