"""Each task from a file to the Hub and from there to a fresh app: every way of asking gives the same answer."""

import threading
from urllib.parse import urlencode

import pandas
import pytest
import torch
from browsing import answered, new_page
from conftest import serve, wait_until
from gradio_client import Client
from pair_bases import pair_base
from transformers import pipeline

import train_space
from adapter_arena import results
from adapter_arena.serve import batch
from adapter_arena.serve.engine import Engine
from adapter_arena.ui.fragments import answer_text

ACTIVATIONS = {"multi-label": "sigmoid", "regression": "none", "pair": "softmax"}
TOLERANCES = {"multi-label": 0.02, "regression": 1.0, "pair": 0.02}
"""Largest difference between the answers of two ways; the numbers of the regression lie between 20 and 70."""
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(params=["pair", "multi-label", "regression"])
def task(request) -> str:
    return request.param


@pytest.fixture
def base(work):
    """A tiny base with a template for pairs."""
    return pair_base(work / "base", "bert")


@pytest.fixture
def folder(hub_server, work, base, task, task_file):
    """The folder of an adapter that was trained from a file and pushed to the Hub as alice/tiny."""
    flags = ["--method=full", "--n-validation=60", "--n-test=80", "--epochs=3", "--lr=2e-3", "--max-length=64"]
    flags += ["--dataset", str(task_file(task)), "--base-model", base.id, "--batch-size=8"]
    assert train_space.main([*flags, "--name=tiny", "--push"]) == 0
    found = results.read(work / "adapters" / "tiny")
    assert (found.task, found.dataset.has_pairs) == (task if task != "pair" else "single-label", task == "pair")
    assert found.hub_id == "alice/tiny"
    return work / "adapters" / "tiny"


def rows_of(path, task: str) -> tuple[pandas.DataFrame, str, str | None]:
    """Return some rows of the file, and its columns of texts."""
    frame = pandas.read_csv(path).head(20)
    return (frame, "premise", "hypothesis") if task == "pair" else (frame, "text", None)


def shown(browser, url: str, **parameters: str) -> str:
    """Return the answer of alice/tiny that the page shows for a link."""
    with new_page(browser) as page:
        page.goto(f"{url}/?{urlencode(parameters | {'adapter': 'alice/tiny'})}")
        answered(page)
        return page.locator("#rows tr[data-name='alice/tiny'] .answer").inner_text()


@pytest.mark.slow
def test_every_way_of_asking_gives_the_same_answer(folder, base, task, task_file, work, browser):
    frame, text_column, pair_column = rows_of(task_file(task), task)
    firsts = frame[text_column].tolist()
    seconds = frame[pair_column].tolist() if pair_column else [""] * len(frame)
    texts = list(zip(firsts, seconds)) if pair_column else firsts

    engine = Engine(base, dtype=torch.float32)
    adapter = engine.add_folder(folder)
    expected = engine.predict(texts)
    assert len({answer.label for answer in expected}) > 1
    scoring = batch.Scoring(frame, text_column, adapter.labels, task=adapter.task, pair_column=pair_column)
    list(scoring.run(engine.predict, threading.Event()))
    scored = scoring.outcome().frame
    engine.close()

    settings = {"ARENA_BASE_MODEL": base.id, "ARENA_MORE_BASES": "0", "ARENA_CACHE": str(work / "cache")}
    with serve("alice/tiny", **settings) as running:
        client = Client(running.url, verbose=False)
        wait_until(lambda: "alice/tiny" in [row["name"] for row in client.predict(api_name="/list_adapters")])
        single = client.predict(firsts[0], "alice/tiny", False, seconds[0], api_name="/predict")
        listed = client.predict(
            list(map(list, texts)) if pair_column else texts, "alice/tiny", api_name="/predict_batch"
        )
        on_page = shown(browser, running.url, text=firsts[0], text_pair=seconds[0])
    assert single["adapter"] == "alice/tiny"

    assert train_space.main(["--export", "tiny", "--base-model", base.id]) == 0
    classify = pipeline("text-classification", "exports/tiny", top_k=None, function_to_apply=ACTIVATIONS[task])
    asked = [{"text": first, "text_pair": second} for first, second in texts] if pair_column else texts
    exported = [{row["label"]: row["score"] for row in answer} for answer in classify(asked)]

    tolerance = TOLERANCES[task]
    for number, answer in enumerate(expected):
        assert listed[number]["scores"] == pytest.approx(answer.scores, abs=tolerance)
        assert exported[number] == pytest.approx(answer.scores, abs=tolerance)
        columns = {"label": "label"} if task == "regression" else {name: f"p_{name}" for name in adapter.labels}
        in_file = {name: float(scored[column][number]) for name, column in columns.items()}
        assert in_file == pytest.approx(answer.scores, abs=tolerance)
    assert single["scores"] == pytest.approx(expected[0].scores, abs=tolerance)
    if task == "multi-label":
        assert single["labels"] == expected[0].labels
    if task == "regression":
        assert single["value"] == pytest.approx(expected[0].value, abs=tolerance)
        assert float(on_page.split()[-1]) == pytest.approx(expected[0].value, abs=tolerance)
    else:
        assert on_page == answer_text(expected[0])
