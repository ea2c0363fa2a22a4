"""The page in a real browser: fixtures of the tests in e2e, and steps that several of them share."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
ARTEFACTS = Path(__file__).parent / "artefacts"
"""Each test leaves a screenshot here."""
HANG_SECONDS = 500
"""Timeout of everything that tests wait for; it only ends a hang, before pytest's timeout does."""
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
LOOKS = [(WIDE, "light"), (NARROW, "dark")]
BOTH = pytest.mark.parametrize("page", LOOKS, indirect=True, ids=["wide-light", "narrow-dark"])
ANIMATIONS_ENDED = "document.getAnimations().every(animation => animation.playState !== 'running')"
PRAISE = "I loved this film. Wonderful acting and a moving story."
TABS = ("Compare", "Train", "Batch", "Leaderboard", "Adapters")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=1000 * HANG_SECONDS)
        yield chromium
        chromium.close()


@contextmanager
def new_page(browser, size=WIDE, scheme="light"):
    """Open an empty page of a window with its own cookies, and close it in the end."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(1000 * HANG_SECONDS)
    with context:
        yield context.new_page()


@pytest.fixture
def page(browser, app, request):
    with new_page(browser, *getattr(request, "param", LOOKS[0])) as page:
        page.requests = []
        page.errors = []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(app.url)
        page.wait_for_selector("#text textarea")
        yield page
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{request.node.name}.png", full_page=True)
        assert page.errors == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def answered(page) -> None:
    """Wait until the table of Compare has answers and the words of a row are explained."""
    page.wait_for_selector("#rows tbody .answer")
    page.wait_for_selector("#details .words")


def compare(page, text: str) -> None:
    """Type a text in Compare, and wait for its answers and the words of the chosen row."""
    page.evaluate("document.querySelectorAll('#rows table, #details .words').forEach(old => old.dataset.old = 1)")
    page.fill("#text textarea", text)
    page.wait_for_selector("#rows table:not([data-old]) .answer")
    page.wait_for_selector("#details .words:not([data-old])")


def open_tab(page, name: str) -> None:
    """Click on a tab, which may be in the overflow menu of a narrow page."""
    page.wait_for_selector("#tabs [role=tab]:visible")
    tab = page.locator("#tabs [role=tab]:visible", has_text=name)
    if tab.count():
        tab.first.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown button", has_text=name).click()


def choose(page, dropdown: str, text: str) -> None:
    """Choose the first option of a drop-down list that contains the text."""
    page.click(f"{dropdown} input")
    page.get_by_role("option").filter(has_text=text).first.click()
