"""The complete page in a browser: hosts that it requests, and accessibility."""

import pytest
from browsing import ANIMATIONS_ENDED, TABS, WIDE, answered, new_page, open_tab


def test_the_page_requests_no_other_host(page, app):
    for name in TABS:
        open_tab(page, name)
    page.wait_for_selector("#card >> text=Measured")
    assert [address for address in page.requests if not address.startswith((app.url, "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_no_serious_finding_of_axe_on_any_tab(browser, app, scheme):
    from axe_playwright_python.sync_playwright import Axe

    serious = []
    with new_page(browser, WIDE, scheme) as page:
        page.goto(app.url)
        answered(page)
        for name in TABS:
            open_tab(page, name)
            if name == "Leaderboard":
                page.wait_for_selector("#scatter svg.marks")
            page.wait_for_function(ANIMATIONS_ENDED)
            for violation in Axe().run(page).response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    nodes = [(node["target"], node["failureSummary"][:200]) for node in violation["nodes"]]
                    serious.append((name, violation["id"], nodes))
    assert serious == []
