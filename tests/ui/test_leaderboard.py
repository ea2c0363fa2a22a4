"""The leaderboard's table, plots, tests and texts, from made results."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from adapter_arena import results, stats, tasks
from adapter_arena.adapters.store import Adapter
from adapter_arena.results import OutOfDomain, SimpleBaseline
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import about, board_address, board_plots, board_table, forest, leaderboard_tab, significance
from adapter_arena.ui.board_plots import CURVES
from adapter_arena.ui.measures import Row

TFIDF = SimpleBaseline(
    accuracy=0.88,
    accuracy_ci95=[0.87, 0.89],
    f1=0.879,
    f1_ci95=[0.86, 0.9],
    seconds=90.0,
    train_rows=64,
    correct="ff" * 5,
    c=3.0,
)


@pytest.fixture
def entry_of(trained):
    """Return a function that makes a measured adapter with these changes of its evaluation, training and origin."""

    def make(name: str = "one", method: str = "lora", dataset: str = "films", base: str = "base", **fields) -> Entry:
        found = results.read(trained)
        found.dataset.id = dataset
        evaluation = {key: value for key, value in fields.items() if hasattr(found.evaluation, key)}
        training = {key: value for key, value in fields.items() if hasattr(found.training, key)}
        found.evaluation = dataclasses.replace(found.evaluation, **evaluation)
        found.training = dataclasses.replace(found.training, **training)
        found.out_of_domain = fields.get("out_of_domain", {})
        return Entry(name, Adapter(name, Path(), method, base, found.labels, found, size=1_000_000))

    return make


def packed(wrong: int) -> str:
    """Return the record of 40 test rows of which the first `wrong` were answered wrongly."""
    import numpy

    return results.pack_rows(numpy.arange(40) >= wrong)


def measured(entry_of, name: str, wrong: int, method: str = "lora") -> Entry:
    """Return an adapter that answered all but `wrong` of the same 40 test rows."""
    low, high = 1 - wrong / 40 - 0.05, 1 - wrong / 40
    return entry_of(name, method, accuracy=1 - wrong / 40, accuracy_ci95=[low, high], correct=packed(wrong), n=40)


# ---------------------------------------------------------------- the table


def body_rows(table: str) -> list[str]:
    return re.findall(r"<tr .*?</tr>", table.partition("<tbody>")[2])


def test_baselines_are_rows_among_the_adapters_and_cannot_be_opened(entry_of):
    good = entry_of("good", "qlora", accuracy=0.92, accuracy_ci95=[0.91, 0.93], baselines={"tfidf": TFIDF})
    poor = entry_of("poor", "ln", accuracy=0.85, accuracy_ci95=[0.84, 0.86])
    first, second, third, *_ = body_rows(board_table.render([poor, good], []))
    assert 'data-name="good"' in first
    assert "TF-IDF + logistic regression" in second
    assert 'class="baseline"' in second
    assert "data-name" not in second
    assert 'data-name="poor"' in third
    assert "92.00 <small>91.0–93.0</small>" in first
    assert "var(--method-qlora)" in first


def test_only_picked_columns_with_a_value_are_shown(entry_of):
    entry = entry_of()
    table = board_table.render([entry], ["ece", "spearmanr"])
    assert re.findall(r'data-key="([^"]*)"', table) == ["adapter", "accuracy", "ece"]
    assert ("Accuracy, %", "accuracy") not in board_table.choices([entry])


def test_accuracy_on_another_data_set_is_a_column_to_pick(entry_of):
    score = OutOfDomain(100, 0.8, [0.7, 0.9], 0.5, [0.4, 0.6], 0.1, "r", "s", "2026-11-26")
    entries = [entry_of("one", out_of_domain={"toys": score}), entry_of("two")]
    assert ("On toys, %", "on:toys") in board_table.choices(entries)
    assert '<td data-value="80.0" class="number">80.00</td>' in board_table.render(entries, ["on:toys"])
    assert "on:toys" not in dict(map(reversed, board_table.choices(entries[1:])))


def test_texts_of_others_are_escaped(entry_of):
    bad = '<img src=x onerror="alert(1)">'
    entry = entry_of(bad, bad, dataset=bad, base=bad, baselines={"tfidf": TFIDF})
    columns = [key for _, key in board_table.choices([entry])]
    other = measured(entry_of, "other", 3)
    pages = [
        board_table.render([entry, other], columns),
        forest.render(board_table.rows([entry, other])),
        significance.render([entry, other]),
        about.render([entry, other]),
    ]
    assert all("<img" not in page for page in pages)


def test_csv_follows_the_columns(entry_of):
    path = board_table.write_csv([entry_of("=one", baselines={"tfidf": TFIDF})], ["merges", "f1", "name"])
    header, *rows = csv.reader(Path(path).read_text().splitlines())
    assert header[-3:] == ["Accuracy, %", "F1, macro", "Merges into base"]
    assert [row[:5] for row in rows if row[4] == "local"] == [["'=one", "lora", "base", "films", "local"]]
    assert ["TF-IDF + logistic regression", "", "base", "films", "baseline"] in [row[:5] for row in rows]


# ---------------------------------------------------------------- plots


def row(title: str, accuracy: float, interval: list[float] | None = None, entry: Entry | None = None) -> Row:
    return Row(title, tasks.SINGLE_LABEL, "films", "base", entry, {"accuracy": (accuracy, interval)})


def test_forest_has_a_line_for_each_row_and_marks_what_is_off_the_axis(entry_of):
    entries = [measured(entry_of, "one", 3, "qlora"), measured(entry_of, "two", 4)]
    plot = forest.render([*board_table.measures.of_adapters(entries), row("near", 88.0), row("far", 20.0)])
    lines = re.findall(r"<li>(.*?)</li>", plot)
    assert [re.search(r"<span>(.*?)</span>", line)[1] for line in lines] == ["QLoRA", "LoRA", "near", "far"]
    assert 'href="#open=one"' in lines[0]
    assert "92.50<" in lines[0]
    assert "95 % interval 87.5–92.5" in lines[0]
    assert "point" in lines[2]
    assert ("◂" in lines[3], "point" in lines[3]) == (True, False)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (85.3, 92.6), (91.4, 91.5), (50.0, 50.0)])
def test_axis_has_a_few_round_marks(low, high):
    axis = forest._Axis(low, high)
    assert 2 <= len(axis.ticks) <= 6
    assert all(0 <= axis.percent(tick) <= 100 for tick in axis.ticks)
    assert [float(f"{tick:.{axis.digits}f}") for tick in axis.ticks] == pytest.approx(axis.ticks)


def test_curves_use_the_recorded_steps_and_name_what_is_missing(entry_of):
    new = entry_of("new", "lora", validation_curve=[[0.0, 0.7, 0.5], [8.0, 0.3, 0.9]])
    one_epoch = entry_of("old", "ia3", validation_curve=[])
    epochs = one_epoch.results.training.epochs
    two = [dataclasses.replace(epochs[0], epoch=1, validation_accuracy=0.8), dataclasses.replace(epochs[0], epoch=2)]
    coarse = entry_of("coarse", "ln", validation_curve=[], epochs=two)
    assert CURVES["score"].points(new.results) == [(0.0, 50.0), (8.0, 90.0)]
    assert CURVES["score"].after_epochs(coarse.results)[0] == (4, 80.0)
    plot, note = board_plots.curves([new, one_epoch, coarse], CURVES["score"])
    assert note == "Once an epoch only: LN tuning. Not recorded: IA³."
    assert '"Validation: Accuracy, %"' in plot.plot
    assert "IA" not in plot.plot


# ---------------------------------------------------------------- significance


def test_sentence_says_what_is_better_and_what_cannot_be_told_apart(entry_of):
    entries = [
        measured(entry_of, "a", 2, "qlora"),
        measured(entry_of, "b", 3, "full"),
        measured(entry_of, "c", 20, "lora"),
        measured(entry_of, "d", 21, "ia3"),
    ]
    labels = board_table.measures.names(entries)
    (matrix,) = significance.matrices(entries[::-1])
    assert [entry.name for entry in matrix.entries] == ["a", "b", "c", "d"]
    assert significance.sentence(matrix, labels) == (
        "QLoRA is better than two of the three others; QLoRA and Full fine-tuning cannot be told apart; "
        "nor can LoRA and IA³."
    )
    (pair,) = significance.matrices(entries[::2])
    assert significance.sentence(pair, labels) == "QLoRA is better than LoRA."
    (equal,) = significance.matrices(entries[:2])
    assert significance.sentence(equal, labels) == "QLoRA and Full fine-tuning cannot be told apart."


def test_matrix_has_the_points_and_p_of_each_pair(entry_of):
    matrix = significance.render([measured(entry_of, "a", 2, "qlora"), measured(entry_of, "b", 20)])
    better, worse = re.findall(r'<td class="cell (.*?)</td>', matrix)
    assert better.startswith('better" style="--strength:1.00" title="QLoRA – LoRA: +45.00 points, p below 0.001"')
    assert "+45.0<span" in better
    assert worse.startswith('worse" style="--strength:1.00" title="LoRA – QLoRA: −45.00 points')
    chance = significance.render([measured(entry_of, "a", 2, "qlora"), measured(entry_of, "b", 3)])
    assert chance.count('class="cell chance"') == 3  # two cells and the key
    assert "may be chance</span>" in chance


def test_matrix_of_another_task_names_its_unit(entry_of, monkeypatch):
    entries = [measured(entry_of, "a", 2, "qlora"), measured(entry_of, "b", 3)]
    difference = stats.Difference("a", "b", 689, 2.1, 0.01, "Spearman correlation", "hundredths", "bootstrap")
    monkeypatch.setattr(stats, "differences", lambda found: [difference])
    matrix = significance.render(entries)
    assert "QLoRA – LoRA: +2.10 hundredths of Spearman correlation, p 0.010" in matrix
    assert "points" not in matrix


def test_one_adapter_has_no_matrix(entry_of):
    assert significance.render([entry_of()]) == ""


# ---------------------------------------------------------------- the view and its address


def test_address_restores_the_view_and_ignores_what_does_not_exist(entry_of):
    entries = [entry_of("one"), entry_of("two", "ia3", dataset="toys")]
    address = {
        "board_data": "toys",
        "board_method": "gone",
        "board_columns": "f1,gone",
        "board_x": "size",
        "board_search": "ia",
        "text": "of another tab",
    }
    view = leaderboard_tab._view(entries, board_address.read(address))
    assert (view.data, view.method, view.columns, view.x, view.search) == ("toys", "All", ["f1"], "size", "ia")
    assert view.y == "accuracy"
    assert board_address.names_view(address)
    assert not board_address.names_view({"text": "a", "adapter": "b"})


def test_filters_select_adapters(entry_of):
    entries = [entry_of("one"), entry_of("two", "ia3", dataset="toys", base="other")]
    assert leaderboard_tab._select(entries, "All", "toys", "All", "All") == entries[1:]
    assert leaderboard_tab._select(entries, "single-label", "All", "base", "lora") == entries[:1]
    one_of_each = ("single-label", "toys", "All", "ia3")
    assert leaderboard_tab._matching(entries, one_of_each, 0) == one_of_each
    assert leaderboard_tab._matching(entries, ("single-label", "toys", "All", "lora"), 3) == (
        "All",
        "All",
        "All",
        "lora",
    )
    _, _, _, methods_of = leaderboard_tab._filter_choices(entries)
    assert methods_of == [("All", "All"), ("IA³", "ia3"), ("LoRA", "lora")]


def test_about_and_citation_come_from_the_results(entry_of):
    entry = entry_of(n=40, baselines={"tfidf": TFIDF}, measured_at="2031-02-03T00:00:00+00:00")
    text = about.render([entry])
    assert "40 of films" in text
    assert entry.results.training.device in text
    assert "TF-IDF" in text
    cited = about.citation([entry])
    assert "year = {2031}" in cited
    assert "1 adapters on films; measured 2031-02-03" in cited
    assert (about.render([]), about.citation([])) == ("", "")
