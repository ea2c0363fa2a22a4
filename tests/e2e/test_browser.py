"""The page in a real browser, at both widths; screenshots stay in tests/artefacts."""

import shutil

import pytest
from conftest import ROOT, serve

from peft_arena import store

CHROMIUM = shutil.which("chromium")
ARTEFACTS = ROOT / "tests" / "artefacts"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def url():
    with serve() as running:
        yield running.url


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url, request):
    size, scheme = getattr(request, "param", (WIDE, "light"))
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.requests = []
    page.on("request", lambda made: page.requests.append(made.url))
    page.goto(url)
    page.wait_for_selector("#text textarea")
    yield page
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{request.node.name}.png", full_page=True)
    context.close()


def answer(page) -> str:
    page.wait_for_selector("#answer .output-class")
    return page.inner_text("#answer .output-class").strip()


@pytest.mark.parametrize("page", [(WIDE, "light"), (NARROW, "dark")], indirect=True, ids=["wide-light", "narrow-dark"])
def test_visitor_types_a_review_and_reads_the_answer(page):
    page.fill("#text textarea", "I loved this film. Wonderful acting and a moving story.")
    page.click("#run")
    assert answer(page) == "positive"
    page.wait_for_function("document.querySelector('#used').innerText.includes(' ms')")
    assert "read whole" in page.inner_text("#used")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_other_adapter_answers_and_shows_its_card(page):
    names = [path.name for path in store.folders(ROOT / "adapters")]
    page.fill("#text textarea", "Shares fell sharply after the company reported a loss for the third quarter.")
    page.click("#adapter input")
    page.get_by_role("option").filter(has_text="agnews").click()
    assert answer(page) == "Business"
    assert "minilm-agnews-lora" in names
    page.wait_for_function("document.querySelector('#card').innerText.includes('minilm-agnews-lora')")
    assert "Sci/Tech" in page.inner_text("#card")


def test_empty_text_gets_a_reason_and_the_page_goes_on(page):
    page.click("#run")
    page.wait_for_selector("text=The text is empty")
    page.fill("#text textarea", "Dreadful. I want those two hours back.")
    page.click("#run")
    assert answer(page) == "negative"


def test_example_fills_the_box_and_keyboard_submits(page):
    page.get_by_text("Clear pan", exact=True).click()
    page.wait_for_function("document.querySelector('#text textarea').value.length > 20")
    page.focus("#text textarea")
    page.keyboard.press("Shift+Enter")
    assert answer(page) == "negative"


def test_html_in_the_text_is_only_text(page):
    page.fill("#text textarea", "<img src=x onerror=\"document.title='hacked'\"> I loved it")
    page.click("#run")
    answer(page)
    assert page.title() == "PEFT Arena"


def test_the_page_asks_no_other_host(page, url):
    assert [made for made in page.requests if not made.startswith((url, "data:", "blob:"))] == []
