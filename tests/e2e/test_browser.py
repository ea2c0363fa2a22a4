"""The page in a real browser, at both widths; screenshots stay in tests/artefacts."""

import json
import shutil

import pytest
from conftest import HANG_SECONDS, ROOT

from adapter_arena.adapters import store

CHROMIUM = shutil.which("chromium")
ARTEFACTS = ROOT / "tests" / "artefacts"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = [(WIDE, "light"), (NARROW, "dark")]
BOTH = pytest.mark.parametrize("page", LOOKS, indirect=True, ids=["wide-light", "narrow-dark"])
STILL = "document.getAnimations().every(animation => animation.playState !== 'running')"
PRAISE = "I loved this film. Wonderful acting and a moving story."


@pytest.fixture
def url(app):
    return app.url


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=1000 * HANG_SECONDS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url, request):
    size, scheme = getattr(request, "param", LOOKS[0])
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG_SECONDS)
    page.requests, page.errors = [], []
    page.on("request", lambda made: page.requests.append(made.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#text textarea")
    yield page
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{request.node.name}.png", full_page=True)
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()


def open_tab(page, name: str) -> None:
    """Choose a tab; at a narrow width it may stand behind the button with the dots."""
    shown = page.locator("#tabs [role=tab]", has_text=name)
    if shown.count() and shown.first.is_visible():
        shown.first.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown button", has_text=name).click()


def answer(page) -> str:
    page.wait_for_selector("#answer .verdict")
    return page.inner_text("#answer .verdict .label").strip()


def choose(page, box: str, text: str) -> None:
    page.click(f"{box} input")
    page.get_by_role("option").filter(has_text=text).first.click()


# ---------------------------------------------------------------- Try


@BOTH
def test_visitor_types_a_review_and_reads_the_answer(page):
    page.fill("#text textarea", PRAISE)
    page.click("#run")
    assert answer(page) == "positive"
    assert " ms" in page.inner_text("#answer")
    assert "read whole" in page.inner_text("#answer")
    page.wait_for_selector("#words mark.for")
    marked = [mark.lower() for mark in page.locator("#words .words mark.for").all_inner_texts()]
    assert any("wonderful" in mark or "loved" in mark for mark in marked)
    assert page.inner_text("#words .words").split() == PRAISE.split()


def test_other_adapter_answers(page):
    page.fill("#text textarea", "Shares fell sharply after the company reported a loss for the third quarter.")
    choose(page, "#adapter", "agnews")
    assert answer(page) == "Business"


def test_a_long_text_is_read_whole_when_asked(page):
    page.get_by_text("Very long", exact=True).first.click()
    page.wait_for_function("document.querySelector('#text textarea').value.length > 2000")
    page.click("#run")
    answer(page)
    assert "cut in the middle" in page.inner_text("#answer")
    page.locator("#whole input").check()
    page.wait_for_function("document.querySelector('#answer').innerText.includes('read whole')")


def test_empty_text_gets_a_reason_and_the_page_goes_on(page):
    page.click("#run")
    page.wait_for_selector("text=The text is empty")
    page.fill("#text textarea", "Dreadful. I want those two hours back.")
    page.click("#run")
    assert answer(page) == "negative"


def test_example_fills_the_box_and_keyboard_submits(page):
    page.get_by_text("Mixed", exact=True).first.click()
    page.wait_for_function("document.querySelector('#text textarea').value.length > 20")
    page.focus("#text textarea")
    page.keyboard.press("Shift+Enter")
    assert answer(page) in ("positive", "negative")


def test_html_in_the_text_is_only_text(page):
    page.fill("#text textarea", "<img src=x onerror=\"document.title='hacked'\"> I loved it")
    page.click("#run")
    answer(page)
    page.wait_for_selector("#words .words")
    assert "<img src=x" in page.inner_text("#words .words")
    assert page.title() == "Adapter Arena"


def test_link_reopens_a_text_with_its_adapter(page, url):
    page.goto(f"{url}/?text=A+dull%2C+endless+bore.&adapter=minilm-imdb-ia3")
    assert answer(page) == "negative"
    assert page.input_value("#text textarea") == "A dull, endless bore."
    assert "minilm-imdb-ia3" in page.inner_text("#answer")


def test_the_page_asks_no_other_host(page, url):
    assert [made for made in page.requests if not made.startswith((url, "data:", "blob:"))] == []


# ---------------------------------------------------------------- Arena


@BOTH
def test_arena_answers_with_every_adapter_and_sorts(page):
    open_tab(page, "Arena")
    page.fill("#arena-text textarea", PRAISE)
    page.click("#compare")
    page.wait_for_selector("#rows table")
    rows = page.locator("#rows tbody tr")
    assert rows.count() == len(store.folders(ROOT / "adapters")) + 2  # the untrained base and the hostile card's
    assert "Untrained base" in rows.first.inner_text()
    page.locator("#rows th button", has_text="Accuracy").click()
    shares = [text.split()[0] for text in page.locator("#rows tbody td:nth-child(4)").all_inner_texts()]
    known = [float(share) for share in shares if share != "–"]
    assert known == sorted(known, reverse=True)
    assert page.locator("#rows th", has_text="Accuracy").get_attribute("aria-sort") == "descending"
    page.locator("#rows .scroll").evaluate("box => box.scrollLeft = 1000")
    name = page.locator("#rows tbody td").first.bounding_box()  # which a narrow page keeps in sight
    assert name["x"] >= 0
    assert name["width"] > 100


def test_arena_marks_who_differs(page):
    open_tab(page, "Arena")
    page.fill("#arena-text textarea", "The price is low and it broke, but as a film prop it looks lovely.")
    page.click("#compare")
    page.wait_for_selector("#rows table")
    labels = page.locator("#rows tbody tr:not(:first-child) .answer").all_inner_texts()
    sentiments = [label for label in labels if label in ("positive", "negative")]
    odd = page.locator("#rows tbody tr.odd:not(:first-child)").count()
    assert odd == min(sentiments.count("positive"), sentiments.count("negative"))


def test_blind_duel_hides_names_until_the_vote(page):
    open_tab(page, "Arena")
    page.fill("#arena-text textarea", PRAISE)
    page.click("#duel")
    page.wait_for_selector("#side-b .verdict")
    assert "minilm" not in page.inner_text("#blind")
    page.click("#vote-b")
    page.wait_for_selector("#revealed .names")
    assert page.inner_text("#revealed").count("minilm") + page.inner_text("#revealed").count("hostile") == 2
    page.click("#tally-box button")
    page.wait_for_selector("#tally table")


# ---------------------------------------------------------------- Batch


@BOTH
def test_batch_scores_a_labelled_file(page, tmp_path):
    file = tmp_path / "reviews.csv"
    rows = [
        ("Wonderful, I loved it.", "positive"),
        ("A terrible bore.", "negative"),
        ("<b>Dreadful</b> acting", "negative"),
    ]
    file.write_text("id,review,sentiment\n" + "".join(f'{i},"{t}",{s}\n' for i, (t, s) in enumerate(rows)))
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("text=3 rows, 3 columns")
    assert page.input_value("#text-column input") == "review"
    assert page.input_value("#label-column input") == "sentiment"
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "3 rows scored" in page.inner_text("#batch-said")
    assert "100.00 %" in page.inner_text("#labelled")
    assert "<b>Dreadful</b>" in page.inner_text("#batch-rows")
    with page.expect_download() as taken:
        page.click("#as-csv")
    assert taken.value.path().read_text().count("\n") == 4


def test_batch_of_pasted_lines(page):
    open_tab(page, "Batch")
    page.fill("#lines textarea", "A joy.\n\nAwful, simply awful.")
    page.locator("#lines textarea").blur()
    page.wait_for_selector("text=2 rows")
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "negative" in page.inner_text("#batch-rows")


def test_batch_stopped_keeps_what_is_done(page, tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("A film about nothing much, told at some length and with great care for the detail.\n" * 20_000)
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("text=20,000 rows")
    page.click("#score")
    page.wait_for_selector("#batch-said .bar")
    page.click("#stop")
    page.wait_for_selector("text=Stopped:")
    page.wait_for_selector("#batch-rows table")


def test_batch_says_what_is_wrong_with_a_file(page, tmp_path):
    file = tmp_path / "empty.csv"
    file.write_text("")
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("#batch-said .error")
    assert "empty" in page.inner_text("#batch-said .error")


# ---------------------------------------------------------------- Leaderboard and Adapters


@BOTH
def test_leaderboard_shows_the_measured_numbers_and_leads_to_the_card(page):
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#board tbody tr")
    found = json.loads((ROOT / "adapters" / "minilm-imdb-lora" / "results.json").read_text())
    assert f"{100 * found['evaluation']['accuracy']:.2f} %" in page.inner_text("#board")
    page.locator("#pareto .point[data-name=minilm-imdb-lora]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#card >> text=minilm-imdb-lora")
    assert found["base_model"]["sha256"][:16] in page.inner_text("#files")


def test_leaderboard_filters_and_axes(page):
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#board tbody tr")
    before = page.locator("#board tbody tr").count()
    choose(page, "#board-data", "All")
    page.wait_for_function(f"document.querySelectorAll('#board tbody tr').length > {before}")
    choose(page, "#axis-x", "Size, MB")
    page.wait_for_selector("#pareto >> text=Size, MB")
    with page.expect_download() as taken:
        page.click("#export")
    assert taken.value.path().read_text().startswith("adapter,method")


def test_adapter_from_the_hub_that_cannot_be_had_says_why(page):
    open_tab(page, "Adapters")
    page.fill("#repo textarea, #repo input", "alice/lora")
    page.click("#load")
    page.wait_for_selector("#status .error")
    assert "The Hub cannot be reached" in page.inner_text("#status")


def test_a_huge_card_with_scripts_is_harmless(page):
    open_tab(page, "Adapters")
    choose(page, "#shown", "hostile")
    page.wait_for_selector("#card >> text=A card")
    assert page.locator("#card script, #card [onerror]").count() == 0
    assert "too long to show" in page.inner_text("#card")
    assert page.title() == "Adapter Arena"


# ---------------------------------------------------------------- for everyone


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_no_serious_finding_of_axe_on_any_tab(browser, url, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport=WIDE, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG_SECONDS)
    page.goto(url)
    page.fill("#text textarea", PRAISE)
    page.click("#run")
    page.wait_for_selector("#words mark")
    serious = []
    for name in ("Try", "Arena", "Batch", "Leaderboard", "Adapters"):
        open_tab(page, name)
        if name == "Arena":
            page.fill("#arena-text textarea", PRAISE)
            page.click("#compare")
            page.wait_for_selector("#rows table")
        page.wait_for_function(STILL)  # new content fades in
        for found in Axe().run(page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                serious += [
                    (name, found["id"], node["target"], node["failureSummary"][:200]) for node in found["nodes"]
                ]
    context.close()
    assert serious == []
