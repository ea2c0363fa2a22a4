"""The figures in the documents are the measured ones."""

import importlib
import json
import statistics
from collections.abc import Iterator

import pytest
from conftest import ROOT
from PIL import Image


def measured(path: str) -> dict:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def sentences() -> Iterator[tuple[str, str]]:
    """Yield (document, sentence) for every figure that a document quotes in its prose."""
    scale = "docs/scale.md"
    serving, scoring = measured("benchmarks/serving.json")["bf16"], measured("benchmarks/scoring.json")
    whole, short = (row["requests_per_second"] for row in serving["clients"].values())
    yield scale, f"{whole:.0f} whole reviews a second over HTTP on two cores ({short:.0f} of 32 tokens)"
    load = serving["load"]
    yield scale, f"({load['memory_mb_before']:,.0f} to {load['memory_mb_after']:,.0f} MB)"
    one, two, killed = (scoring[run]["rows_per_second"] for run in ("1 worker", "2 workers", "2 workers, one killed"))
    yield scale, f"{one:,.0f} rows a second with one worker, {two:,.0f} with two ({two / one:.2f} times as many)"
    yield scale, f"{killed:,.0f} with one of two killed"
    yield scale, f"scores {scoring['datasets']['rows_per_second']:,.0f} of them with `datasets`"
    rate = statistics.median(serving["peers"]["Adapter Arena"]["one"])
    yield scale, f"{rate:.1f} reviews a second on two cores"
    hours = 2 * 1e6 / rate / 3600  # of one core, for a million reviews
    yield scale, f"| 10⁶ | {hours:.1f} |"
    yield scale, f"| {hours * 0.05:.2f} $ |"
    yield scale, f"| 10⁹ | {1000 * hours:,.0f} |"
    yield scale, f"| {1000 * hours * 0.05:,.0f} $ |"
    starts = [measured("benchmarks/start.json")[hub] for hub in ("answers", "refuses", "accepts and is silent")]
    a, b, c = (start["start_seconds"] for start in starts)
    yield "docs/benchmarks.md", f"{a:.1f}, {b:.1f} and {c:.1f} s to the first answer"
    a, b, c = (1000 * start["click_seconds"] for start in starts)
    yield "docs/benchmarks.md", f"{a:.0f}, {b:.0f} and {c:.0f} ms a click"
    for report in ("minilm-3k", "imdb-20k"):
        for row in measured(f"docs/{report}/comparison.json")["rows"]:
            title = "full" if row["method"] == "full" else row["title"]
            yield "docs/benchmarks.md", f"{title} {100 * row['accuracy']:.1f} %"


def test_what_the_prose_says_of_faults_was_seen():
    load, scoring = measured("benchmarks/serving.json")["bf16"]["load"], measured("benchmarks/scoring.json")
    assert load["answered"] == load["requests"]  # docs/scale.md: "all answered"
    assert not load["tracebacks"]
    for run in ("1 worker", "2 workers", "2 workers, one killed"):  # "none lost, all in order"
        assert scoring[run]["lost"] == scoring[run]["out_of_order"] == 0
    assert scoring["2 workers, one killed"]["killed"] == 1


@pytest.mark.parametrize(("document", "sentence"), sentences())
def test_figures_in_the_prose_are_the_measured_ones(document, sentence):
    assert sentence in (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["try", "arena", "leaderboard"])
def test_the_pictures_show_the_shipped_adapters(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    shown = importlib.import_module("pictures").shown()
    assert Image.open(ROOT / "docs" / f"{name}.png").text["adapters"] == shown, "run python docs/pictures.py"
