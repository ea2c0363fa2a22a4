"""The page in a real browser, wide and narrow; screenshots are left in tests/artefacts."""

import json
import shutil

import pytest
from conftest import HANG_SECONDS, ROOT

from adapter_arena.adapters import store

CHROMIUM = shutil.which("chromium")
ARTEFACTS = ROOT / "tests" / "artefacts"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
LOOKS = [(WIDE, "light"), (NARROW, "dark")]
BOTH = pytest.mark.parametrize("page", LOOKS, indirect=True, ids=["wide-light", "narrow-dark"])
ANIMATIONS_ENDED = "document.getAnimations().every(animation => animation.playState !== 'running')"
TABS = ("Try", "Arena", "Batch", "Leaderboard", "Adapters")
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
    page.requests = []
    page.errors = []
    page.on("request", lambda request: page.requests.append(request.url))
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
    """Click on a tab, which may be in the overflow menu of a narrow page."""
    tab = page.locator("#tabs [role=tab]", has_text=name)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown button", has_text=name).click()


def answer(page) -> str:
    """Wait for the answer in Try and return its label."""
    page.wait_for_selector("#answer .verdict")
    return page.inner_text("#answer .verdict .label").strip()


def choose(page, dropdown: str, text: str) -> None:
    """Choose the first option of a drop-down list that contains the text."""
    page.click(f"{dropdown} input")
    page.get_by_role("option").filter(has_text=text).first.click()


def compare_all(page, text: str) -> None:
    """Send a text to every adapter in Arena and wait for the table."""
    page.fill("#arena-text textarea", text)
    page.click("#compare")
    page.wait_for_selector("#rows table")


# ---------------------------------------------------------------- Try


@BOTH
def test_a_review_is_classified_and_explained(page):
    page.fill("#text textarea", PRAISE)
    page.click("#run")
    assert answer(page) == "positive"
    assert " ms" in page.inner_text("#answer")
    assert "read completely" in page.inner_text("#answer")
    page.wait_for_selector("#words mark.for")
    marked = " ".join(page.locator("#words .words mark.for").all_inner_texts()).lower()
    assert "wonderful" in marked or "loved" in marked
    assert page.inner_text("#words .words").split() == PRAISE.split()


def test_choosing_another_adapter_classifies_again(page):
    page.fill("#text textarea", "Shares fell sharply after the company reported a loss for the third quarter.")
    choose(page, "#adapter", "agnews")
    assert answer(page) == "Business"


def test_a_long_text_is_truncated_or_read_completely(page):
    page.get_by_text("Very long", exact=True).first.click()
    page.wait_for_function("document.querySelector('#text textarea').value.length > 2000")
    page.click("#run")
    answer(page)
    assert "truncated in the middle" in page.inner_text("#answer")
    page.locator("#whole input").check()
    page.wait_for_function("document.querySelector('#answer').innerText.includes('read completely')")


def test_empty_text_is_an_error_and_the_page_still_works(page):
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


def test_html_in_the_text_is_escaped(page):
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


def test_the_page_requests_no_other_host(page, url):
    for name in TABS:
        open_tab(page, name)
    page.wait_for_selector("#card >> text=Measured")
    assert [address for address in page.requests if not address.startswith((url, "data:", "blob:"))] == []


# ---------------------------------------------------------------- Arena


@BOTH
def test_arena_answers_with_every_adapter_and_sorts(page):
    open_tab(page, "Arena")
    compare_all(page, PRAISE)
    rows = page.locator("#rows tbody tr")
    # All shipped adapters, the one with a hostile card, and the untrained base.
    assert rows.count() == len(store.folders(ROOT / "adapters")) + 2
    assert "Untrained base" in rows.first.inner_text()
    page.locator("#rows th button", has_text="Accuracy").click()
    cells = page.locator("#rows tbody td:nth-child(4)").all_inner_texts()
    accuracies = [float(cell.split()[0]) for cell in cells if cell != "–"]
    assert accuracies == sorted(accuracies, reverse=True)
    assert page.locator("#rows th", has_text="Accuracy").get_attribute("aria-sort") == "descending"
    page.locator("#rows .scroll").evaluate("box => box.scrollLeft = 1000")
    first_column = page.locator("#rows tbody td").first.bounding_box()
    assert first_column["x"] >= 0
    assert first_column["width"] > 100


def test_arena_highlights_answers_that_differ(page):
    open_tab(page, "Arena")
    compare_all(page, "The price is low and it broke, but as a film prop it looks lovely.")
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
    names = page.inner_text("#revealed")
    assert names.count("minilm") + names.count("hostile") == 2
    page.click("#tally-box button")
    page.wait_for_selector("#tally table")


# ---------------------------------------------------------------- Batch


@BOTH
def test_batch_scores_a_labelled_file(page, tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text(
        "id,review,sentiment\n"
        '1,"Wonderful, I loved it.",positive\n'
        "2,A terrible bore.,negative\n"
        "3,<b>Dreadful</b> acting,negative\n"
    )
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
    page.wait_for_selector("#histogram svg.marks")
    with page.expect_download() as download:
        page.click("#as-csv")
    assert download.value.path().read_text().count("\n") == 4


def test_batch_of_pasted_lines(page):
    open_tab(page, "Batch")
    page.fill("#lines textarea", "A joy.\n\nAwful, simply awful.")
    page.locator("#lines textarea").blur()
    page.wait_for_selector("text=2 rows")
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "negative" in page.inner_text("#batch-rows")
    page.fill("#min-confidence input[type=number]", "1")
    page.locator("#min-confidence input[type=number]").blur()
    page.click("#score")
    page.wait_for_selector("text=2 abstained")
    assert page.inner_text("#batch-rows").count("abstained") == 2


def test_a_stopped_batch_shows_the_rows_that_are_done(page, tmp_path):
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


def test_an_empty_file_is_an_error(page, tmp_path):
    file = tmp_path / "empty.csv"
    file.write_text("")
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("#batch-said .error")
    assert "empty" in page.inner_text("#batch-said .error")


# ---------------------------------------------------------------- Leaderboard and Adapters


@BOTH
def test_leaderboard_shows_the_measured_numbers_and_opens_the_card(page):
    open_tab(page, "Leaderboard")
    results = json.loads((ROOT / "adapters" / "minilm-imdb-lora" / "results.json").read_text())
    row = page.locator("#board tr[data-name=minilm-imdb-lora]")
    row.wait_for()
    assert f"{100 * results['evaluation']['accuracy']:.2f}" in row.inner_text()
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#card >> text=minilm-imdb-lora")
    assert results["base_model"]["sha256"][:16] in page.inner_text("#files")


@BOTH
def test_leaderboard_charts_show_every_method_and_a_tooltip(page):
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#curves svg.marks .mark-line path")
    marks = page.locator("#scatter svg.marks .mark-symbol.role-mark path")
    marks.first.wait_for()
    assert marks.count() == page.locator("#board tbody tr").count()
    assert "QLoRA" in page.text_content("#scatter svg.marks .role-legend")
    assert page.locator("#scatter svg.marks").bounding_box()["width"] > 300
    marks.first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible >> text=Trained parameters")


def test_leaderboard_filters_and_axes(page):
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#board tbody tr")
    rows = page.locator("#board tbody tr").count()
    choose(page, "#board-data", "All")
    page.wait_for_function(f"document.querySelectorAll('#board tbody tr').length > {rows}")
    choose(page, "#axis-x", "Size, MB")
    page.wait_for_selector("#scatter svg.marks >> text=Size, MB")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.path().read_text().startswith("adapter,method")


def test_loading_an_adapter_without_the_hub_is_an_error(page):
    open_tab(page, "Adapters")
    page.fill("#repo textarea, #repo input", "alice/lora")
    page.click("#load")
    page.wait_for_selector("#status .error >> text=The Hub cannot be reached, so alice/lora cannot be fetched")


def test_a_huge_card_with_scripts_is_harmless(page):
    open_tab(page, "Adapters")
    choose(page, "#shown", "hostile")
    page.wait_for_selector("#card >> text=A card")
    assert page.locator("#card script, #card [onerror]").count() == 0
    assert "too long to show" in page.inner_text("#card")
    assert page.title() == "Adapter Arena"


# ---------------------------------------------------------------- accessibility


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
    for name in TABS:
        open_tab(page, name)
        if name == "Arena":
            compare_all(page, PRAISE)
        if name == "Leaderboard":
            page.wait_for_selector("#scatter svg.marks")
        page.wait_for_function(ANIMATIONS_ENDED)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [(node["target"], node["failureSummary"][:200]) for node in violation["nodes"]]
                serious.append((name, violation["id"], nodes))
    context.close()
    assert serious == []
