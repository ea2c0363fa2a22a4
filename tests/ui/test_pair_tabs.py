"""The page with an adapter of pairs: a second box and a second column, for that adapter only."""

import asyncio
import dataclasses
from types import SimpleNamespace

import gradio as gr
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
    assert component(demo, "text-pair").visible is True  # the first adapters are those of both kinds
    show = event(demo, "_show_scope")
    *_, box = show(PAIR[0], "", "both", False)
    assert box.visible is True
    *_, box = show(PAIR[0], PAIR[1], "single", False)
    assert box.visible is False


def test_compare_answers_with_both_texts_and_ignores_a_hidden_second_one(demo):
    answer = event(demo, "_answer")
    explain = event(demo, "_explain")
    _, table, chosen = answer(*PAIR, "both", False)
    assert chosen == "both"
    details = explain(*PAIR, "both", False, chosen)
    assert "<dd>12</dd>" in details
    assert "superb" in details
    assert "film" in details
    details = explain(*PAIR, "single", False, "single")
    assert "<dd>7</dd>" in details
    assert "film" not in details
    summary, table, chosen = answer(PAIR[0], "", "both", False)
    assert "both texts" in summary
    assert "skeleton" in table
    assert chosen is None


def test_compare_names_adapters_that_take_no_pairs(demo):
    answer = event(demo, "_answer")
    _, table, _ = answer(*PAIR, "all", False)
    assert "single classifies single texts, not pairs" in table
    _, table, _ = answer(PAIR[0], "", "all", False)
    assert "both classifies pairs of texts (premise and hypothesis)" in table


def test_a_link_opens_both_texts(demo):
    opened = asyncio.run(event(demo, "_open")(SimpleNamespace(query_params={"text": PAIR[0], "text_pair": PAIR[1]})))
    boxes = [value for value in opened if getattr(value, "elem_id", None) or isinstance(value, gr.Textbox)]
    assert PAIR[0] in opened
    assert PAIR[1] in [getattr(box, "value", None) for box in boxes]


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
