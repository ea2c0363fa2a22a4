"""Take the README's screenshots of the app with the shipped adapters, in headless Chromium.

    python docs/pictures.py

The metadata of each picture holds the digest of the adapters it shows; a test compares it with the shipped ones.
"""

import hashlib
import sys
from pathlib import Path

import numpy
from PIL import Image, PngImagePlugin
from playwright.sync_api import Page, sync_playwright
from scipy.spatial import cKDTree

EXACT_COLOURS = 32
DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from browsing import CHROMIUM, answered, open_tab  # noqa: E402
from conftest import serve  # noqa: E402

from adapter_arena import results  # noqa: E402
from adapter_arena.adapters import store  # noqa: E402


def shown() -> str:
    """Return the SHA-256 of the results of all shipped adapters."""
    digest = hashlib.sha256()
    for folder in store.folders(ROOT / "adapters"):
        digest.update((folder / results.FILE).read_bytes())
    return digest.hexdigest()


def compare_tab(page: Page) -> None:
    """Show the first answers and the words that moved one of them."""
    answered(page)


def train_tab(page: Page) -> None:
    """Show what was read from a file, and the estimate."""
    open_tab(page, "Train")
    page.click("#train-example")
    page.wait_for_selector("#train-plan >> text=Trained parameters")


def leaderboard_tab(page: Page) -> None:
    """Show the leaderboard."""
    open_tab(page, "Leaderboard")
    page.wait_for_selector("#board table")
    page.wait_for_selector("#scatter svg.marks")
    page.wait_for_selector("#curves svg.marks")


def save(page: Page, path: Path) -> None:
    """Write a screenshot of the page, with the digest of the adapters in its metadata."""
    page.screenshot(path=path, full_page=True)
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("adapters", shown())
    few_colours(Image.open(path).convert("RGB")).save(path, pnginfo=metadata, optimize=True)


def few_colours(image: Image.Image) -> Image.Image:
    """Return the image in 256 colours, a third of its size as PNG.

    The most frequent colours, those of areas, are kept exactly. The others, of marks and the edges of letters, get the
    nearest of colours spread over theirs. Pillow alone tints areas or gives small marks the colour of their
    surroundings.
    """
    pixels = numpy.asarray(image)
    colours, indices, counts = numpy.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    by_frequency = colours[numpy.argsort(-counts)]
    others = Image.fromarray(by_frequency[None, EXACT_COLOURS:])
    spread = others.quantize(256 - EXACT_COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette()
    palette = numpy.vstack([by_frequency[:EXACT_COLOURS], numpy.reshape(spread, (-1, 3))])
    _, nearest = cKDTree(palette).query(colours)
    reduced = Image.fromarray(nearest.astype(numpy.uint8)[indices].reshape(pixels.shape[:2]))
    reduced.putpalette(palette.astype(numpy.uint8).tobytes())
    return reduced


PICTURES = {"compare": compare_tab, "leaderboard": leaderboard_tab, "train": train_tab}


def main() -> None:
    """Write docs/compare.png, docs/train.png and docs/leaderboard.png."""
    with serve() as running, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        for name, prepare in PICTURES.items():
            page.goto(running.url)
            page.wait_for_selector("#text textarea")
            page.wait_for_timeout(20_000)  # the adapters are timed in the background
            prepare(page)
            page.mouse.move(0, 0)
            save(page, DOCS / f"{name}.png")
        chromium.close()


if __name__ == "__main__":
    main()
