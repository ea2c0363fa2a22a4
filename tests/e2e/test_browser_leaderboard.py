"""The tab Leaderboard in a browser."""

import json

from browsing import BOTH, choose, open_tab
from conftest import ROOT


def open_board(page):
    """Open the tab and wait for its table."""
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#board tr[data-name=minilm-imdb-lora]")


@BOTH
def test_leaderboard_shows_the_measured_numbers_and_opens_the_card(page):
    open_board(page)
    results = json.loads((ROOT / "adapters" / "minilm-imdb-lora" / "results.json").read_text())
    row = page.locator("#board tr[data-name=minilm-imdb-lora]")
    assert f"{100 * results['evaluation']['accuracy']:.2f}" in row.inner_text()
    assert page.locator("#board tr.baseline").count() > 0
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#card-heading >> text=minilm-imdb-lora")
    assert f"{results['training']['trainable_params']:,} trained parameters" in page.inner_text("#overview")


@BOTH
def test_leaderboard_charts_show_every_method_and_open_the_adapter(page):
    open_board(page)
    page.wait_for_selector("#curves svg.marks")
    marks = page.locator("#scatter svg.marks .mark-symbol.role-mark path")
    marks.first.wait_for()
    adapters = page.locator("#board tr[data-name]").count()
    assert marks.count() == page.locator("#forest a.line").count() == adapters
    assert "QLoRA" in page.text_content("#scatter svg.marks .role-legend")
    assert page.locator("#scatter svg.marks").bounding_box()["width"] > 300
    marks.first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible >> text=Trained parameters")
    marks.first.click(force=True)
    page.wait_for_selector("#card >> text=minilm-imdb")
    assert "#open" not in page.url


def test_leaderboard_filters_columns_and_search(page):
    open_board(page)
    rows = page.locator("#board tbody tr").count()
    choose(page, "#board-data", "All")
    page.wait_for_function(f"document.querySelectorAll('#board tbody tr').length > {rows}")
    choose(page, "#axis-x", "Size, MB")
    page.wait_for_selector("#scatter svg.marks >> text=Size, MB")
    page.click("#board-columns button")
    page.get_by_label("F1, macro", exact=True).check()
    page.wait_for_selector("#board th[data-key=f1]")
    page.fill("#board-search :is(input, textarea)", "agnews lora")
    page.wait_for_selector("#board .count >> text=match")
    assert page.locator("#board tr[data-name]:visible").count() == 1
    with page.expect_download() as download:
        page.click("#export")
    header = download.value.path().read_text().splitlines()[0]
    assert header.startswith("adapter,method")
    assert "F1, macro" in header


def test_a_link_restores_the_view(page, app):
    page.goto(
        f"{app.url}?board_task=single-label&board_data=All&board_method=lora&board_search=imdb"
        "&board_columns=f1&board_sort=f1&board_curve=training"
    )
    page.wait_for_selector("#board tr[data-name=minilm-imdb-lora]")  # the tab is open
    assert page.locator("#board th[data-key]").evaluate_all("heads => heads.map(head => head.dataset.key)") == [
        "adapter", "accuracy", "f1",
    ]  # fmt: skip
    assert page.get_attribute("#board th[data-key=f1]", "aria-sort") == "ascending"
    shown = page.locator("#board tr[data-name]:visible").evaluate_all("rows => rows.map(row => row.dataset.name)")
    assert shown == ["minilm-imdb-lora"]
    page.wait_for_selector("#curves svg.marks >> text=Training loss")
    page.click("#board th[data-key=accuracy] button")
    choose(page, "#board-method", "QLoRA")
    page.wait_for_selector("#board tr[data-name=minilm-imdb-qlora]")
    page.click("#board-link button, button#board-link")
    page.wait_for_function("location.search.includes('board_method=qlora')")
    assert "board_sort=-accuracy" in page.url
    assert "board_columns=f1" in page.url
