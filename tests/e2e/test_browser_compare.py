"""The tab Compare in a browser."""

import json

from browsing import BOTH, PRAISE, answered, choose, compare
from conftest import ROOT

from adapter_arena.adapters import store

ROWS = "#rows tbody tr"
SHIFTS = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) sum += entry.value; })
    .observe({type: 'layout-shift', buffered: true});
  setTimeout(() => done(sum), 100);
})"""
"""JavaScript that returns the sum of all layout shifts since the page was opened."""


def row(page, name: str):
    return page.locator(f"#rows tr[data-name={name}]")


def answer(page, name: str) -> str:
    return row(page, name).locator(".answer").inner_text().strip()


@BOTH
def test_the_first_answers_are_there_before_anything_is_typed(page):
    answered(page)
    shipped = [json.loads((path / "results.json").read_text()) for path in store.folders(ROOT / "adapters")]
    of_imdb = {found["name"] for found in shipped if found["dataset"]["id"] == "imdb"} | {"hostile"}
    assert set(page.locator(ROWS).evaluate_all("rows => rows.map(row => row.dataset.name)")) == of_imdb
    assert "cannot be told apart on 12,454 texts of imdb" in page.inner_text("#headline")
    assert "Untrained base" in page.inner_text("#rows tfoot")
    scores = [float(cell.split()[0]) for cell in page.locator(f"{ROWS} td:last-child").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator(ROWS).first.get_attribute("aria-current") == "true"
    assert page.evaluate(SHIFTS) < 0.1  # the bound of Core Web Vitals; 0.0006 measured


def test_typing_answers_again_and_shows_who_disagrees(page):
    answered(page)
    compare(page, PRAISE)
    assert "agree: positive" in page.inner_text("#summary")
    marked = " ".join(page.locator("#details mark.for").all_inner_texts()).lower()
    assert "wonderful" in marked or "loved" in marked
    compare(page, "The price is low and it broke, but as a film prop it looks lovely.")
    labels = page.locator(f"{ROWS} .answer").all_inner_texts()
    counts = sorted([labels.count("positive"), labels.count("negative")])
    is_split = counts[0] == counts[1]
    assert page.locator(f"{ROWS}.odd").count() == (0 if is_split else counts[0])


def test_a_row_is_chosen_with_the_mouse_and_the_keyboard(page):
    answered(page)
    row(page, "minilm-imdb-ia3").click()
    page.wait_for_selector("#details >> text=minilm-imdb-ia3")
    names = page.locator(ROWS).evaluate_all("rows => rows.map(row => row.dataset.name)")
    below = names[names.index("minilm-imdb-ia3") + 1]
    row(page, "minilm-imdb-ia3").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(f"#details dd >> text={below}")
    assert row(page, below).get_attribute("aria-current") == "true"
    assert "read completely" in page.inner_text("#details")


def test_the_order_that_a_visitor_chose_is_kept(page):
    answered(page)
    page.locator("#rows th button", has_text="Trained").click()
    first = page.locator(ROWS).first.get_attribute("data-name")
    assert first == "minilm-imdb-ln"
    compare(page, PRAISE)
    assert page.locator(ROWS).first.get_attribute("data-name") == first
    assert page.locator("#rows th", has_text="Trained").get_attribute("aria-sort") == "ascending"


def test_choosing_an_adapter_of_other_labels_shows_its_own_example(page):
    answered(page)
    choose(page, "#adapter", "agnews")
    page.wait_for_selector("#details .bars >> text=Sports")
    assert answer(page, "minilm-agnews-lora") == "World"
    page.wait_for_selector("#examples >> text=Business")
    page.get_by_role("button", name="Sports", exact=True).click()
    page.wait_for_selector("#rows .answer >> text=Sports")


def test_a_long_text_is_truncated_or_read_completely(page):
    answered(page)
    page.get_by_role("button", name="Very long").click()
    page.wait_for_selector("#details >> text=truncated in the middle")
    page.locator("#whole input").check()
    page.wait_for_selector("#details >> text=read completely")


def test_without_a_text_there_is_a_hint_and_the_page_still_works(page):
    answered(page)
    page.fill("#text textarea", " ")
    page.wait_for_selector("#summary >> text=Type or paste a text")
    compare(page, "Dreadful. I want those two hours back.")
    assert answer(page, "minilm-imdb-lora") == "negative"


def test_html_in_the_text_is_escaped(page):
    answered(page)
    compare(page, "<img src=x onerror=\"document.title='hacked'\"> I loved it")
    assert "<img src=x" in page.inner_text("#details .words")
    assert page.title() == "Adapter Arena"


def test_link_reopens_a_text_with_its_adapter(page, app):
    page.goto(f"{app.url}/?text=A+dull%2C+endless+bore.&adapter=minilm-imdb-ia3")
    answered(page)
    assert answer(page, "minilm-imdb-ia3") == "negative"
    assert page.locator(ROWS).count() == 1
    assert page.input_value("#text textarea") == "A dull, endless bore."
    page.click("#link")
    assert page.inner_text("#link") == "Link copied"
    assert page.evaluate("location.search") == "?text=A+dull%2C+endless+bore.&adapter=minilm-imdb-ia3"


@BOTH
def test_blind_duel_hides_names_until_the_vote(page):
    answered(page)
    page.get_by_text("Blind duel").click()
    page.wait_for_selector("#side-b .verdict")
    assert not page.locator("#rows").is_visible()
    assert "minilm" not in page.inner_text("#blind")
    page.click("#vote-b")
    page.wait_for_selector("#revealed .names")
    names = page.inner_text("#revealed")
    assert names.count("minilm") + names.count("hostile") == 2
    page.click("#tally-box button")
    page.wait_for_selector("#tally table")
    page.get_by_text("All answers").click()
    page.wait_for_selector(ROWS)
