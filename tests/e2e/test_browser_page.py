"""The complete page in a browser: hosts that it requests, and accessibility."""

import pytest
from browsing import ANIMATIONS_ENDED, TABS, WIDE, answered, open_tab
from conftest import HANG_SECONDS


def test_the_page_requests_no_other_host(page, app):
    for name in TABS:
        open_tab(page, name)
    page.wait_for_selector("#card >> text=Measured")
    assert [address for address in page.requests if not address.startswith((app.url, "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_no_serious_finding_of_axe_on_any_tab(browser, app, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport=WIDE, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG_SECONDS)
    page.goto(app.url)
    answered(page)
    serious = []
    for name in TABS:
        open_tab(page, name)
        if name == "Leaderboard":
            page.wait_for_selector("#scatter svg.marks")
        page.wait_for_function(ANIMATIONS_ENDED)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [(node["target"], node["failureSummary"][:200]) for node in violation["nodes"]]
                serious.append((name, violation["id"], nodes))
    context.close()
    assert serious == []
