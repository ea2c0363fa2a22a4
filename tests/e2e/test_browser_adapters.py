"""The tab Adapters in a browser."""

from browsing import BOTH, choose, open_tab

SCREENS = 3 * 800
"""Height in pixels that no part of the tab exceeds in a window of 1280 x 800."""


def open_part(page, name: str) -> None:
    """Click on a sub-tab of the adapter."""
    page.locator("#card-tabs [role=tab]", has_text=name).first.click()


@BOTH
def test_an_adapter_is_shown_in_parts_of_at_most_three_screens(page):
    open_tab(page, "Adapters")
    choose(page, "#shown", "agnews")
    page.wait_for_selector("#card-heading >> text=minilm-agnews-lora")
    assert "Where it is weak" in page.inner_text("#overview")
    assert page.locator("#overview .confusion td.right").count() == 4
    parts = {"Measured": "#plot-reliability svg.marks", "Use it": "#code .cm-line", "Files": "#files table"}
    for name, content in parts.items():
        open_part(page, name)
        page.wait_for_selector(content)
        if page.viewport_size["width"] > 1000:
            assert page.evaluate("document.documentElement.scrollHeight") < SCREENS
    open_part(page, "Use it")
    page.get_by_label("recipe.yaml").check()
    page.wait_for_selector("#code >> text=minilm-agnews-lora")


def test_loading_an_adapter_without_the_hub_is_an_error_where_it_was_entered(page):
    open_tab(page, "Adapters")
    page.fill("#repo textarea, #repo input", "alice/lora")
    page.click("#check")
    page.wait_for_selector("#verdict .error >> text=The Hub cannot be reached, so alice/lora cannot be fetched")
    assert not page.locator("#load").is_visible()
    page.click("#cancel")
    page.wait_for_selector("#verdict", state="hidden")


def test_a_huge_card_with_scripts_is_harmless(page):
    open_tab(page, "Adapters")
    choose(page, "#shown", "hostile")
    page.wait_for_selector("#card-heading >> text=hostile")
    open_part(page, "Files")
    page.click("#card-accordion button")
    page.wait_for_selector("#model-card >> text=A card")
    assert page.locator("#model-card script, #model-card [onerror]").count() == 0
    assert "too long to show" in page.inner_text("#model-card")
    assert page.title() == "Adapter Arena"


def test_folders_that_are_not_served_are_collapsed(page):
    open_tab(page, "Adapters")
    page.click("#left-out summary >> text=3 folders are not served")
    assert page.locator("#left-out li").count() == 3
    assert page.locator("#status .error").count() == 0


def test_a_link_opens_the_adapter_and_choosing_another_changes_the_address(page, app):
    page.goto(f"{app.url}/?shown=minilm-imdb-ia3&other=1")
    page.wait_for_selector("#text textarea")
    open_tab(page, "Adapters")
    page.wait_for_selector("#card-heading >> text=minilm-imdb-ia3")
    choose(page, "#shown", "agnews")
    page.wait_for_selector("#card-heading >> text=minilm-agnews-lora")
    assert page.evaluate("location.search") == "?shown=minilm-agnews-lora&other=1"
    page.goto(f"{app.url}/?shown=minilm-imdb-ia3")
    page.wait_for_selector("#card-heading >> text=IA³")
