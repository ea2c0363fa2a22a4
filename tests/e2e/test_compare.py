"""The tabs Try and Arena in a browser."""

from browsing import BOTH, PRAISE, choose, open_tab
from conftest import ROOT

from adapter_arena.adapters import store


def answer(page) -> str:
    """Wait for the answer in Try and return its label."""
    page.wait_for_selector("#answer .verdict")
    return page.inner_text("#answer .verdict .label").strip()


def compare_all(page, text: str) -> None:
    """Send a text to every adapter in Arena and wait for the table."""
    page.fill("#arena-text textarea", text)
    page.click("#compare")
    page.wait_for_selector("#rows table")


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


def test_link_reopens_a_text_with_its_adapter(page, app):
    page.goto(f"{app.url}/?text=A+dull%2C+endless+bore.&adapter=minilm-imdb-ia3")
    assert answer(page) == "negative"
    assert page.input_value("#text textarea") == "A dull, endless bore."
    assert "minilm-imdb-ia3" in page.inner_text("#answer")


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
