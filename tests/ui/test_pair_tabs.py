"""The page with an adapter of pairs: a second box and a second column, for that adapter only."""

import dataclasses

import pandas
import pytest
import torch
from conftest import ROOT
from pair_bases import PAIR, pair_base
from plain_adapters import CONFIGS, plain_adapter

from adapter_arena import results
from adapter_arena.adapters import store
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import page
from adapter_arena.ui.limits import RateLimiter
from adapter_arena.ui.metrics import Metrics


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The page of an app with an adapter of single texts, `single`, and one of pairs, `both`."""
    place = tmp_path_factory.mktemp("tabs")
    base = pair_base(place / "base", "bert")
    engine = Engine(base, dtype=torch.float32, merged_mb=0)
    shipped = results.read(ROOT / "adapters" / "minilm-imdb-ia3")
    for name, columns in (("single", ["text"]), ("both", ["premise", "hypothesis"])):
        adapter = store.read(plain_adapter(base, CONFIGS["lora"], place / name), base)
        found = dataclasses.replace(shipped, dataset=dataclasses.replace(shipped.dataset, text_columns=columns))
        engine.add(dataclasses.replace(adapter, labels=found.labels, results=found))
    catalogue = Catalogue(engine)
    yield page.build(catalogue, Metrics(catalogue), RateLimiter())
    engine.close()


def event(demo, name: str):
    """Return the function of the page's event that is a method of that name."""
    return next(function.fn for function in demo.fns.values() if getattr(function.fn, "__name__", "") == name)


def component(demo, elem_id: str):
    return next(block for block in demo.blocks.values() if getattr(block, "elem_id", None) == elem_id)


def test_the_second_box_appears_with_an_adapter_of_pairs(demo):
    assert component(demo, "text-pair").visible is False
    assert component(demo, "arena-text-pair").visible is True
    show = event(demo, "_show_second_text")
    assert show("both").visible is True
    assert show("single").visible is False


def test_try_answers_with_both_texts_and_ignores_a_hidden_second_one(demo):
    classify = event(demo, "_classify")
    explain = event(demo, "_explain")
    assert "<dd>12</dd>" in classify(PAIR[0], "both", PAIR[1], False)
    assert "<dd>7</dd>" in classify(PAIR[0], "single", PAIR[1], False)
    words = explain(PAIR[0], "both", PAIR[1]).value
    assert "superb" in words
    assert "film" in words
    assert "film" not in explain(PAIR[0], "single", PAIR[1]).value
    again = event(demo, "_classify_again")
    assert "Enter a text" in again(PAIR[0], "both", "", False)


def test_arena_compares_pairs_and_names_adapters_that_take_none(demo):
    compare = event(demo, "_compare")
    table, _ = compare(*PAIR)
    assert "single classifies single texts, not pairs" in table
    table, _ = compare(PAIR[0], "")
    assert "both classifies pairs of texts (premise and hypothesis)" in table


def test_batch_reads_two_columns(demo, tmp_path):
    frame = pandas.DataFrame({"hypothesis": [PAIR[1], "", "fine"], "premise": [PAIR[0], "fine", "good"]})
    path = tmp_path / "pairs.csv"
    frame.to_csv(path, index=False)
    updates = event(demo, "_read")(str(path), "", "both", None)
    values = {
        block.elem_id: update.value
        for block, update in updates.items()
        if getattr(block, "elem_id", None) in ("text-column", "pair-column")
    }
    assert values == {"text-column": "premise", "pair-column": "hypothesis"}
    key = next(update for update in updates.values() if isinstance(update, str) and len(update) > 20)
    *_, last = event(demo, "_score")(key, "premise", "–", "hypothesis", "both")
    rows = next(update for block, update in last.items() if getattr(block, "elem_id", None) == "batch-rows")
    assert "The acting is superb .<br>the film is awful" in rows
    assert "The text is empty" in rows
    *_, last = event(demo, "_score")(key, "premise", "–", None, "both")
    assert any("choose the column of the second text too" in str(update) for update in last.values())
