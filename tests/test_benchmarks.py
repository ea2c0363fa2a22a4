"""The figures in the documents are the measured ones."""

import importlib
import json
import statistics
from collections.abc import Iterator

import pytest
from conftest import ROOT
from PIL import Image

SCALE = "docs/scale.md"
BENCHMARKS = "docs/benchmarks.md"
SCORING_RUNS = ("1 worker", "2 workers", "2 workers, one killed")
DOLLARS_PER_CORE_HOUR = 0.05


def measured(path: str) -> dict:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def sentences() -> Iterator[tuple[str, str]]:
    """Yield (document, sentence) for every figure that a document quotes in its prose."""
    serving = measured("benchmarks/serving.json")["bf16"]
    yield from ((SCALE, sentence) for sentence in http_sentences(serving))
    yield from ((SCALE, sentence) for sentence in scoring_sentences())
    yield from ((SCALE, sentence) for sentence in cost_sentences(serving))
    yield from ((BENCHMARKS, sentence) for sentence in type_sentences(serving))
    yield from ((BENCHMARKS, sentence) for sentence in start_sentences())
    yield from ((BENCHMARKS, sentence) for sentence in accuracy_sentences())


def http_sentences(serving: dict) -> Iterator[str]:
    whole_reviews = serving["clients"]["whole reviews"]["requests_per_second"]
    short_texts = serving["clients"]["beginnings of 32 tokens"]["requests_per_second"]
    yield f"{whole_reviews:.0f} whole reviews a second over HTTP on two cores ({short_texts:.0f} of 32 tokens)"
    load = serving["load"]
    yield f"({load['memory_mb_before']:,.0f} to {load['memory_mb_after']:,.0f} MB)"


def scoring_sentences() -> Iterator[str]:
    scoring = measured("benchmarks/scoring.json")
    one, two, killed = (scoring[run]["rows_per_second"] for run in SCORING_RUNS)
    yield f"{one:,.0f} rows a second with one worker, {two:,.0f} with two ({two / one:.2f} times as many)"
    yield f"{killed:,.0f} with one of two killed"
    yield f"scores {scoring['datasets']['rows_per_second']:,.0f} of them with `datasets`"


def cost_sentences(serving: dict) -> Iterator[str]:
    reviews_per_second = statistics.median(serving["peers"]["Adapter Arena"]["one"])
    core_hours = 2 * 1e6 / reviews_per_second / 3600  # for a million reviews on two cores
    yield f"{reviews_per_second:.1f} reviews a second on two cores"
    yield f"| 10⁶ | {core_hours:.1f} |"
    yield f"| {core_hours * DOLLARS_PER_CORE_HOUR:.2f} $ |"
    yield f"| 10⁹ | {1000 * core_hours:,.0f} |"
    yield f"| {1000 * core_hours * DOLLARS_PER_CORE_HOUR:,.0f} $ |"


def start_sentences() -> Iterator[str]:
    starts = measured("benchmarks/start.json")
    hubs = [starts[hub] for hub in ("answers", "refuses", "accepts and is silent")]
    answers, refuses, silent = (hub["start_seconds"] for hub in hubs)
    yield f"{answers:.1f}, {refuses:.1f} and {silent:.1f} s to the first answer"
    answers, refuses, silent = (1000 * hub["click_seconds"] for hub in hubs)
    yield f"{answers:.0f}, {refuses:.0f} and {silent:.0f} ms a click"


def type_sentences(serving: dict) -> Iterator[str]:
    adapters = serving["types"].values()
    largest_change = max(adapter["largest_change"] for adapter in adapters)
    flips = sum(adapter["flips"] for adapter in adapters)
    texts = sum(adapter["texts"] for adapter in adapters)
    yield f"{largest_change:.4f}, and {flips} of {texts:,} answers changed"


def accuracy_sentences() -> Iterator[str]:
    for report in ("minilm-3k", "imdb-20k"):
        for row in measured(f"docs/{report}/comparison.json")["rows"]:
            title = "full" if row["method"] == "full" else row["title"]
            yield f"{title} {100 * row['accuracy']:.1f} %"


def test_no_request_failed_and_no_row_was_lost():
    load = measured("benchmarks/serving.json")["bf16"]["load"]
    assert load["answered"] == load["requests"]  # docs/scale.md: "all requests were answered"
    assert load["tracebacks"] == 0
    scoring = measured("benchmarks/scoring.json")
    for run in SCORING_RUNS:  # docs/scale.md: "no row was lost or out of order"
        assert scoring[run]["lost"] == 0
        assert scoring[run]["out_of_order"] == 0
    assert scoring["2 workers, one killed"]["killed"] == 1


@pytest.mark.parametrize(("document", "sentence"), sentences())
def test_figures_in_the_prose_are_the_measured_ones(document, sentence):
    assert sentence in (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["compare", "leaderboard", "train"])
def test_the_pictures_show_the_shipped_adapters(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    shown = importlib.import_module("pictures").shown()
    picture = Image.open(ROOT / "docs" / f"{name}.png")
    assert picture.text["adapters"] == shown, "run python docs/pictures.py"
