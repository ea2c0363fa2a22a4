"""The tab Leaderboard in a browser."""

import json

from browsing import BOTH, choose, open_tab
from conftest import ROOT


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
