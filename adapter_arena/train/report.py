"""Write a comparison as comparison.json, report.md and pictures."""

import dataclasses
import json
from pathlib import Path

import jinja2

from adapter_arena import results, tasks
from adapter_arena.adapters import cards, plots
from adapter_arena.results import Results
from adapter_arena.train.comparison import Comparison

FILE = "comparison.json"
_TEMPLATE = Path(__file__).with_name("comparison.md.jinja")


def write(comparison: Comparison, found: dict[str, list[Results]], folder: Path) -> None:
    """Write comparison.json, report.md and its pictures to `folder`; `found` are the results of the runs by row name."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(_content(comparison), indent=2, ensure_ascii=False)
    (folder / FILE).write_text(content + "\n", encoding="utf-8")
    metric = comparison.metric
    plots.write_comparison(comparison.rows, metric, comparison.untrained[metric.name], found, folder)
    (folder / "report.md").write_text(_render(comparison, found), encoding="utf-8")


def _content(comparison: Comparison) -> dict:
    """Return the comparison as JSON; single-label ones also have the fields of earlier versions, which scripts read."""
    content = dataclasses.asdict(comparison)
    if comparison.task != tasks.SINGLE_LABEL:
        return content
    content["baseline_accuracy"] = comparison.untrained["accuracy"]
    for row in content["rows"]:
        accuracy = row["scores"]["accuracy"]
        row["accuracies"] = accuracy["values"]
        row["accuracy"] = accuracy["mean"]
        row["accuracy_ci95"] = accuracy["ci95"]
        row["test_ci95"] = accuracy["test_ci95"]
        row["f1"] = row["scores"]["f1"]["mean"]
        row["ece"] = row["scores"]["ece"]["mean"]
    return content


def _render(comparison: Comparison, found: dict[str, list[Results]]) -> str:
    task = tasks.TASKS[comparison.task]
    titles = {}
    devices = {}
    budgets = {}
    for row in comparison.rows:
        titles[row.name] = row.title
        devices[row.title] = row.device
        recipe = found[row.name][0].recipe
        epochs = "1 epoch" if recipe["epochs"] == 1 else f"{recipe['epochs']} epochs"
        budgets[row.title] = (
            f"{epochs}, batch {recipe['batch_size']}, served on the 4-bit base at {recipe['max_length']} tokens"
        )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cards.cell
    environment.filters["percent"] = lambda share: f"{100 * share:.2f}"
    environment.globals["score_in"] = results.score_in
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        c=comparison,
        task=task,
        metric=task.objective,
        others=task.table_metrics[1:],
        is_single_label=comparison.task == tasks.SINGLE_LABEL,
        elsewhere=any(row.elsewhere for row in comparison.rows),
        titles=titles,
        machines=results.machines(devices),
        budgets=budgets,
        baseline_titles=results.baseline_titles(comparison.task),
    )
