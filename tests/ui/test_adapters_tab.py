"""What Adapters shows of an adapter: made from its results, escaped, and short where it was not trained here."""

import ast
import dataclasses
import json
import re

import pytest
from conftest import ROOT

from adapter_arena import results, tasks
from adapter_arena.adapters.store import Adapter
from adapter_arena.results import Bin, Constant, Coverage, Evaluation, Scale, Score
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import adapter_measured, adapter_overview, adapter_plots, adapter_status, adapter_usage
from adapter_arena.ui.adapters_tab import AdaptersTab

HOSTILE = '<img src=x onerror="steal()">'


def shipped(name: str) -> results.Results:
    return results.read(ROOT / "adapters" / name)


def without_extras(found: results.Results) -> results.Results:
    """Return the results as they were before baselines, abstention and other data sets were measured."""
    evaluation = dataclasses.replace(found.evaluation, baselines={}, abstention=[])
    return dataclasses.replace(found, evaluation=evaluation, out_of_domain={})


def entry_of(found: results.Results | None, **fields) -> Entry:
    labels = found.labels if found else ["bad", "good"]
    task = found.task if found else tasks.SINGLE_LABEL
    adapter = Adapter("one", ROOT, found.method if found else "lora", "base", labels, found, size=10**6, task=task)
    return Entry("one", dataclasses.replace(adapter, **fields))


def of_task(task: str) -> results.Results:
    """Return results of a task other than single-label."""
    names = [metric.name for metric in tasks.TASKS[task].metrics]
    scores = {name: Score(0.75, [0.7, 0.8]) for name in names}
    evaluation = Evaluation(
        split="test",
        n=500,
        served_as="nf4",
        seconds=1.0,
        scores=scores,
        untrained={name: Score(0.25, [0.2, 0.3]) for name in names},
        constant=Constant("art", {name: Score(0.5, [0.4, 0.6]) for name in names}),
        temperature=1.0,
    )
    labels = ["stars"]
    if task == tasks.MULTI_LABEL:
        labels = ["art", "law"]
        single = shipped("minilm-imdb-lora").evaluation.per_class
        evaluation.per_class = dict(zip(labels, single.values()))
        evaluation.thresholds = dict.fromkeys(labels, 0.4)
    scale = Scale(3.0, 1.0) if task == tasks.REGRESSION else None
    training = shipped("minilm-imdb-lora").training
    for epoch in training.epochs:
        epoch.validation_scores = dict.fromkeys(names, 0.7)
    changed = {"labels": labels, "evaluation": evaluation, "scale": scale, "training": training, "out_of_domain": {}}
    return dataclasses.replace(shipped("minilm-imdb-lora"), task=task, **changed)


def test_the_overview_is_made_from_the_results():
    found = without_extras(shipped("minilm-agnews-lora"))
    content = adapter_overview.render(entry_of(found))
    assert "Trained on 8,982 texts of <b>agnews</b>" in content
    assert "812,932 trained parameters" in content
    assert "<b>90.79 % <small>89.8–91.7</small></b>" in content
    assert content.count('class="score"') == 3
    assert "var(--method-lora)" in content
    assert 'title="9.1 % of World answered' not in content
    assert 'title="90.9 % of World answered World"' in content


def test_weak_points_name_the_label_the_confusion_and_the_texts():
    weak = adapter_overview.weak_points(shipped("minilm-agnews-lora"))
    assert "Weakest label: “Business”, F1 0.867 on 951 texts." in weak
    assert "“Business” is most often confused with “Sci/Tech”: 102 texts, 10.7 % of them." in weak
    assert "On imdb it reaches 75.9 % of 2,000 texts." in adapter_overview.weak_points(shipped("minilm-amazon-lora"))
    long_texts = "Texts of 374–384 tokens: 87.0 % of 3,103 right."
    assert adapter_overview.weak_points(without_extras(shipped("minilm-imdb-ia3"))) == [long_texts]


def test_an_adapter_without_results_says_so():
    entry = entry_of(None, notes=(f"a note with {HOSTILE}",))
    content = adapter_overview.render(entry)
    assert "nothing was measured here" in content
    assert "labels bad, good" in content
    assert "a note with &lt;img" in content
    assert adapter_measured.tables(entry) == adapter_measured.NOTHING
    assert adapter_measured.mistakes(entry) == ""


@pytest.mark.parametrize("task", [tasks.MULTI_LABEL, tasks.REGRESSION])
def test_other_tasks_show_their_own_scores(task):
    found = of_task(task)
    content = adapter_overview.render(entry_of(found))
    metric = tasks.TASKS[task].objective
    assert f"{metric.title} on 500 test texts: <b>0.750 <small>0.700–0.800</small></b>" in content
    assert "Always “art”" in content
    assert "Confusion matrix" not in content
    assert ("By label" in content) == (task == tasks.MULTI_LABEL)
    assert "accuracy" not in adapter_measured.tables(entry_of(found)).replace("Subset accuracy", "").lower()
    assert adapter_usage.titles(entry_of(found)) == list(adapter_usage.TITLES)


def test_names_from_results_are_escaped():
    found = shipped("minilm-imdb-ia3")
    bad = HOSTILE
    evaluation = dataclasses.replace(
        found.evaluation,
        per_class=dict.fromkeys([bad], found.evaluation.per_class["positive"]),
        mistakes=[dataclasses.replace(found.evaluation.mistakes[0], text=bad, truth=bad, predicted=bad)],
    )
    dataset = dataclasses.replace(found.dataset, id=bad)
    training = dataclasses.replace(found.training, device=bad)
    found = dataclasses.replace(
        found, labels=[bad, "good"], evaluation=evaluation, dataset=dataset, training=training, out_of_domain={}
    )
    entry = entry_of(found)
    pieces = [adapter_overview.heading, adapter_overview.render, adapter_measured.tables, adapter_measured.mistakes]
    for render in pieces:
        assert "<img" not in render(entry)


def test_code_is_shown_one_piece_at_a_time():
    entry = entry_of(shipped("minilm-imdb-lora"))
    assert adapter_usage.titles(entry) == list(adapter_usage.TITLES)
    for title, (_, language) in adapter_usage.TITLES.items():
        code, shown_as = adapter_usage.code(entry, title)
        assert shown_as == language
        if language == "python":
            ast.parse(code)
    assert (
        adapter_usage.code(entry, "Train it again")[0]
        == "python train_space.py --recipe recipe.yaml --dataset path/to/imdb"
    )
    plain = entry_of(None)
    assert adapter_usage.titles(plain) == ["This app, in Python", "This app, with curl"]
    assert 'client.predict("A quiet, moving film.", "one"' in adapter_usage.code(plain, "This app, in Python")[0]


def points(chart) -> list[dict]:
    """Return the rows of a chart's last layer."""
    return json.loads(chart.plot)["layer"][-1]["data"]["values"]


def test_charts_show_what_was_recorded_and_nothing_else():
    old = without_extras(shipped("minilm-agnews-lora"))
    assert len(points(adapter_plots.reliability(old))) == len(old.evaluation.reliability)
    assert adapter_plots.abstention(old) is None
    assert adapter_plots.loss(old) is None
    assert adapter_plots.score(old) is None
    evaluation = dataclasses.replace(
        old.evaluation,
        reliability=[Bin(0.9, 0.8, [0.7, 0.9], 10)],
        abstention=[Coverage(1.0, 0.5, 0.8, [0.7, 0.9], 10), Coverage(0.5, 0.9, 1.0, [0.6, 1.0], 5)],
    )
    training = dataclasses.replace(
        old.training, losses=[[1, 0.7], [2, 0.6]], validation_curve=[[1, 0.65, 0.5], [2, 0.5, 0.8]]
    )
    new = dataclasses.replace(old, evaluation=evaluation, training=training)
    assert points(adapter_plots.reliability(new)) == [{"x": 0.9, "y": 0.8, "low": 0.7, "high": 0.9, "n": 10}]
    assert [row["x"] for row in points(adapter_plots.abstention(new))] == [1.0, 0.5]
    assert len(points(adapter_plots.loss(new))) == 4
    assert [row["y"] for row in points(adapter_plots.score(new))] == [0.5, 0.8]
    assert "var(--method-lora)" in adapter_plots.loss(new).plot


class FakeCatalogue:
    """A catalogue with three folders that are not served."""

    entries = (Entry("one", Adapter("one", ROOT, "lora", "base", ["a", "b"], None)),)
    left_out = (f"left out: {HOSTILE}", "left out: two", "left out: three")

    class status:
        reached = None
        problems = ()


def test_folders_that_are_not_served_are_a_collapsed_list():
    content = adapter_status.render(FakeCatalogue)
    assert "<summary>3 folders are not served</summary>" in content
    inside = re.search(r"<details id=.left-out.>(.*)</details>", content)[1]
    assert inside.count("<li>") == 3
    assert "<img" not in content
    assert 'class="error"' not in content


@pytest.mark.parametrize(
    ("parameters", "selects", "chosen", "repo"),
    [
        ({"shown": "one"}, True, "one", None),
        ({"shown": "one", "__theme": "dark"}, True, "one", None),
        ({"shown": "one", "text": "fine"}, False, "one", None),
        ({"shown": "bob/new"}, True, None, "bob/new"),
        ({"text": "fine"}, False, None, None),
    ],
)
def test_a_link_opens_an_adapter_unless_it_is_for_another_tab(parameters, selects, chosen, repo):
    class Request:
        query_params = parameters

    tab = AdaptersTab.__new__(AdaptersTab)
    tab._catalogue = FakeCatalogue
    tabs, dropdown, box = tab._open_link(Request)
    assert (getattr(tabs, "selected", None) == "adapters") == selects
    assert dropdown.constructor_args.get("value") == chosen
    assert (box if isinstance(box, str) else None) == repo
