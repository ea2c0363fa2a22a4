"""The tab Adapters in a browser."""

from browsing import choose, open_tab


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
