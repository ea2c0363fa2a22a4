"""Measure how long a user waits for the page of a warm app in headless Chromium.

    python benchmarks/page.py [--rows 50000] [--cpu avx2]

Measures the first paint and the first answers, a comparison of ten adapters, a tab, layout shifts, and then the
requests of another user while a large file is scored. Starts app.py with ten adapters (the shipped ones, some of them
twice). Prints the results and writes them to benchmarks/page.json, for each kind of CPU; `--cpu avx2` measures with the
app on an emulated older one (cpu.py).
"""

import argparse
import json
import os
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

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))  # the tests' default is 1

import cpu  # noqa: E402
from browsing import choose, open_tab  # noqa: E402
from conftest import serve  # noqa: E402

from adapter_arena.adapters import store  # noqa: E402
from adapter_arena.data import sample  # noqa: E402

RESULT = Path(__file__).with_suffix(".json")
PAINTS = 5
ANSWERS = 15
TAB_ROUNDS = 3
TABS = {"Batch": "#file", "Leaderboard": "#board", "Adapters": "#card", "Compare": "#text"}
"""The tabs, in the order in which they are opened, and an element of each."""
REVIEW = (
    "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything. "
    "The cast is fine throughout, and the score does more than it should have to."
)
DIFFERENT_TEXTS = 2000
TYPE_AND_WAIT = """(text) => new Promise((done) => {
    const table = document.querySelector('#rows');
    table.querySelectorAll('table').forEach((old) => old.dataset.old = 1);
    const start = performance.now();
    new MutationObserver((changes, observer) => {
        if (!table.querySelector('table:not([data-old]) .answer')) return;
        observer.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    }).observe(table, {childList: true, subtree: true});
    const box = document.querySelector('#text textarea');
    box.value = text;
    const typed = new Event('input', {bubbles: true});
    typed.isExample = true;
    box.dispatchEvent(typed);
})"""
"""JavaScript that sends a text without the pause after typing, and returns the milliseconds until the frame that shows the new answers."""
FIRST_ANSWERS = """() => new Promise((done) => {
    const look = () => document.querySelector('#rows tbody .answer') ? done(performance.now()) : requestAnimationFrame(look);
    look();
})"""
"""JavaScript that returns the milliseconds from the start of the page until it shows answers."""
SHIFTS = """() => new Promise((done) => {
    let sum = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) sum += entry.value; })
        .observe({type: 'layout-shift', buffered: true});
    setTimeout(() => done(sum), 100);
})"""
"""JavaScript that returns the sum of all layout shifts since the page was opened."""


def ten_adapters(folder: Path) -> str:
    """Return the setting that adds copies of shipped adapters until there are ten."""
    shipped = store.folders(ROOT / "adapters")
    copies = []
    for i in range(10 - len(shipped)):
        copies.append(str(shutil.copytree(shipped[i], folder / f"again-{i}")))
    return ",".join(copies)


def milliseconds_since(start: float) -> float:
    """Return the milliseconds since a value of `time.perf_counter`."""
    return 1000 * (time.perf_counter() - start)


def first_screens(page: Page, url: str) -> dict[str, list[float]]:
    """Load the page several times; return the milliseconds until its first paint and its answers, and its layout shifts."""
    found = {"first_paint_ms": [], "first_answers_ms": [], "layout_shift": []}
    for _ in range(PAINTS):
        page.goto(url)
        found["first_answers_ms"].append(page.evaluate(FIRST_ANSWERS))
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        found["first_paint_ms"].append(paint)
        page.wait_for_timeout(500)
        found["layout_shift"].append(page.evaluate(SHIFTS))
    return found


def comparisons(page: Page) -> list[float]:
    """Compare all adapters on texts; return the milliseconds of each."""
    choose(page, "#adapter", "All")
    milliseconds = []
    for number in range(ANSWERS):
        page.wait_for_timeout(1000)  # the words of the row before are explained
        milliseconds.append(page.evaluate(TYPE_AND_WAIT, f"{REVIEW} {number}"))
    return milliseconds


def tab_changes(page: Page) -> list[float]:
    """Open the tabs in turn, and last Compare; return the milliseconds of each."""
    milliseconds = []
    for _ in range(TAB_ROUNDS):
        for name, element in TABS.items():
            milliseconds.append(open_and_wait(page, name, element))
    return milliseconds


def open_and_wait(page: Page, name: str, element: str) -> float:
    """Open a tab; return the milliseconds until the element is visible."""
    start = time.perf_counter()
    open_tab(page, name)
    page.wait_for_selector(element, state="visible")
    return milliseconds_since(start)


def median_and_most(milliseconds: list[float]) -> dict[str, float]:
    """Return the median and the maximum."""
    return {"median": statistics.median(milliseconds), "most": max(milliseconds)}


def one_user(page: Page, url: str) -> dict:
    """Measure what one user of the app waits for."""
    screens = first_screens(page, url)
    found = {name: median_and_most(values) for name, values in screens.items()}
    found["tab_ms"] = median_and_most(tab_changes(page))
    found["comparison_of_ten_ms"] = median_and_most(comparisons(page))
    return found


def predict_ms(url: str) -> float:
    """Return the milliseconds of one request to /predict over HTTP."""
    start = time.perf_counter()
    request = urllib.request.Request(
        f"{url}/gradio_api/run/predict",
        json.dumps({"data": [REVIEW, ""]}).encode(),
        {"content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).read()
    return milliseconds_since(start)


def write_large_file(path: Path, rows: int) -> None:
    """Write a CSV file of different made-up texts."""
    texts = sample.make(DIFFERENT_TEXTS)["text"].tolist()
    with path.open("w") as file:
        file.write("text\n")
        for number in range(rows):
            text = texts[number % DIFFERENT_TEXTS].replace('"', '""')
            file.write(f'"{text} ({number})"\n')


def start_scoring(page: Page, url: str, file: Path, rows: int) -> None:
    """Upload a file in Batch and start to score it."""
    page.goto(url)
    page.wait_for_selector("#text textarea")
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector(f"text={rows:,} rows", timeout=60_000)
    page.click("#score")
    page.wait_for_selector("#batch-said .bar")


def large_file(page: Page, url: str, rows: int, folder: Path) -> dict:
    """Score a file in Batch while its user changes tabs and another user sends a text every half second."""
    file = folder / "large.csv"
    write_large_file(file, rows)
    alone_ms = [predict_ms(url) for _ in range(20)]
    start_scoring(page, url, file, rows)
    start = time.perf_counter()
    other_user_ms = []
    tab_ms = []
    is_done = threading.Event()

    def send_texts() -> None:
        while not is_done.wait(0.5):
            other_user_ms.append(predict_ms(url))

    other_user = threading.Thread(target=send_texts)
    other_user.start()
    while "rows scored" not in page.inner_text("#batch-said"):
        page.wait_for_timeout(3000)
        tab_ms.append(open_and_wait(page, "Compare", "#text"))
        open_and_wait(page, "Batch", "#batch-said")
    seconds = time.perf_counter() - start
    is_done.set()
    other_user.join()
    other_user_ms.sort()
    return {
        "rows": rows,
        "rows_per_second": rows / seconds,
        "other_visitor_ms": {
            "alone_median": statistics.median(alone_ms),
            "median": statistics.median(other_user_ms),
            "p95": other_user_ms[int(0.95 * len(other_user_ms))],
            "n": len(other_user_ms),
        },
        "tab_ms": median_and_most(tab_ms),
    }


def main() -> None:
    """Measure the page and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=50_000, help="of the large file; 0 does not measure it and keeps its last results"
    )
    cpu.add_option(parser)
    options = parser.parse_args()
    cpu.become(options.cpu)
    found = cpu.facts()
    folder = Path(tempfile.mkdtemp(prefix="arena-bench-"))
    with serve(ten_adapters(folder)) as running:
        os.environ.pop("LD_PRELOAD", None)  # only the app is on the emulated CPU: the browser does not start there
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            found |= one_user(page, running.url)
            if options.rows:
                found["large_file"] = large_file(page, running.url, options.rows, folder)
            browser.close()
    print(json.dumps(found, indent=2))
    kind = cpu.kind_of_this_machine()
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    results[kind] = results.get(kind, {}) | found
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
