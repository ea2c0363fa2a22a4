"""How the page feels, hot, in headless Chromium: answer, arena, tabs, first paint; and a large file beside a visitor.

    python benchmarks/page.py [--rows 50000]

Starts app.py with ten adapters (shipped ones, some twice). Prints a table and writes benchmarks/page.json.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from conftest import serve  # noqa: E402
from test_browser import open_tab  # noqa: E402

from adapter_arena.adapters import store  # noqa: E402
from adapter_arena.data import sample  # noqa: E402

TIMES = 15
REVIEW = (
    "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything. "
    "The cast is fine throughout, and the score does more than it should have to."
)


def ten_adapters(place: Path) -> str:
    """Folders that make the shipped adapters up to ten, separated by commas."""
    shipped = store.folders(ROOT / "adapters")
    copies = [shutil.copytree(shipped[i], place / f"again-{i}") for i in range(10 - len(shipped))]
    return ",".join(str(copy) for copy in copies)


def in_browser(page: Page, button: str, shown: str) -> float:
    """Milliseconds from a click to the frame that shows the new answer in `shown`, measured in the page itself."""
    return page.evaluate(
        """([button, shown]) => new Promise((done) => {
             const box = document.querySelector(shown);
             box.querySelectorAll('.verdict, table').forEach((old) => old.dataset.old = 1);
             const start = performance.now();
             new MutationObserver((changes, observer) => {
               if (!box.querySelector('.verdict:not([data-old]), table:not([data-old])')) return;
               observer.disconnect();
               requestAnimationFrame(() => done(performance.now() - start));
             }).observe(box, {childList: true, subtree: true});
             document.querySelector(button).click();
           })""",
        [button, shown],
    )


def feel(page: Page, url: str) -> dict:
    """Medians of the things a visitor waits for."""
    paints = []
    for _ in range(5):
        page.goto(url)
        page.wait_for_selector("#text textarea")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    page.fill("#text textarea", REVIEW)
    answers = []
    for number in range(TIMES):
        page.fill("#text textarea", f"{REVIEW} {number}")
        answers.append(in_browser(page, "#run", "#answer"))
        page.wait_for_timeout(400)  # the words come after the answer
    tabs = []
    for name, shown in (
        ("Batch", "#file"),
        ("Leaderboard", "#board"),
        ("Adapters", "#card"),
        ("Arena", "#arena-text"),
    ) * 3:
        start = time.perf_counter()
        open_tab(page, name)
        page.wait_for_selector(shown, state="visible")
        tabs.append(1000 * (time.perf_counter() - start))
    arenas = []
    for number in range(TIMES):
        page.fill("#arena-text textarea", f"{REVIEW} {number}")
        arenas.append(in_browser(page, "#compare", "#rows"))
        page.wait_for_timeout(100)
    kinds = {"first_paint_ms": paints, "answer_ms": answers, "tab_ms": tabs, "arena_of_ten_ms": arenas}
    return {kind: {"median": statistics.median(all_), "most": max(all_)} for kind, all_ in kinds.items()}


def ask(url: str) -> float:
    """Milliseconds of one /predict over HTTP."""
    start = time.perf_counter()
    request = urllib.request.Request(
        f"{url}/gradio_api/run/predict",
        json.dumps({"data": [REVIEW, ""]}).encode(),
        {"content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).read()
    return 1000 * (time.perf_counter() - start)


def large_file(page: Page, url: str, rows: int, place: Path) -> dict:
    """Score a file in Batch while another visitor asks one text a second and the page's tabs are used."""
    frame = sample.make(2000)
    file = place / "large.csv"
    texts = [f"{text} ({number})" for number, text in zip(range(rows), list(frame["text"]) * (rows // 2000 + 1))]
    file.write_text("text\n" + "".join('"' + text.replace('"', '""') + '"\n' for text in texts))
    alone = [ask(url) for _ in range(20)]
    page.goto(url)
    page.wait_for_selector("#text textarea")
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector(f"text={rows:,} rows", timeout=60_000)
    start = time.perf_counter()
    page.click("#score")
    page.wait_for_selector("#batch-said .bar")
    beside, tabs, over = [], [], threading.Event()

    def visit() -> None:
        while not over.wait(0.5):
            beside.append(ask(url))

    visitor = threading.Thread(target=visit)
    visitor.start()
    while "rows scored" not in page.inner_text("#batch-said"):
        page.wait_for_timeout(3000)
        clicked = time.perf_counter()
        open_tab(page, "Arena")
        page.wait_for_selector("#arena-text", state="visible")
        tabs.append(1000 * (time.perf_counter() - clicked))
        open_tab(page, "Batch")
        page.wait_for_selector("#batch-said", state="visible")
    seconds = time.perf_counter() - start
    over.set()
    visitor.join()
    beside.sort()
    return {
        "rows": rows,
        "rows_per_second": rows / seconds,
        "other_visitor_ms": {
            "alone_median": statistics.median(alone),
            "median": statistics.median(beside),
            "p95": beside[int(0.95 * len(beside))],
            "n": len(beside),
        },
        "tab_ms": {"median": statistics.median(tabs), "most": max(tabs)},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=50_000, help="of the large file; 0 leaves that part as it was measured"
    )
    rows = parser.parse_args().rows
    place = Path(tempfile.mkdtemp(prefix="arena-bench-"))
    with serve(ten_adapters(place)) as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found = feel(page, running.url)
        if rows:
            found["large_file"] = large_file(page, running.url, rows, place)
        browser.close()
    print(json.dumps(found, indent=2))
    kept = Path(__file__).with_suffix(".json")
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    kept.write_text(json.dumps(before | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
