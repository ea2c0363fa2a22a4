"""The model card of an adapter, made from its results alone."""

import base64
import dataclasses
import functools
import html
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData

from adapter_arena import abstention, tasks
from adapter_arena.adapters import known, plots, store
from adapter_arena.errors import AdapterError
from adapter_arena.models import bases, methods
from adapter_arena.models.architecture import outside_encoder
from adapter_arena.recipe import Recipe
from adapter_arena.results import (
    BaseFacts,
    DatasetFacts,
    Evaluation,
    Results,
    Score,
    SimpleBaseline,
    baseline_titles,
    machines,
    read,
    score_in,
    score_of,
    trained_baselines,
    untrained_score_of,
)
from adapter_arena.stats import shortcomings

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_HUB_METRICS = ("accuracy", "f1", "precision", "recall", "spearmanr", "pearsonr", "mae")
"""Metrics that the Hub knows by these names."""
_PURPOSES = {
    tasks.SINGLE_LABEL: "classify texts as",
    tasks.MULTI_LABEL: "give texts any of the labels",
    tasks.REGRESSION: "predict for texts the number",
}
_LIMITS = {
    tasks.SINGLE_LABEL: "Every text gets one of the labels, even if none applies. ",
    tasks.MULTI_LABEL: "A text gets any number of the labels, also none. ",
    tasks.REGRESSION: "Every text gets a number, even if none applies. ",
}
_PIPELINE_OPTIONS = {
    tasks.SINGLE_LABEL: "",
    tasks.MULTI_LABEL: ', function_to_apply="sigmoid"',
    tasks.REGRESSION: ', function_to_apply="none"',
}
_SNIPPETS = ("peft", "pipeline", "client", "curl", "recipe", "command")
_DEFAULT_TEXT = "A quiet, moving film."
"""The text in the card's code if no example may be shown."""
_DEFAULT_SECOND_TEXT = "A film that moves you without a loud word."
_MAX_PICTURE_BYTES = 500_000
_MAX_COLUMNS = 12
"""Number of labels up to which the confusion matrix is also a table."""


@dataclass(frozen=True)
class StatedFacts:
    """What the user states for the card; None for what is known without it, or not known."""

    language: str | None = None
    license: str | None = None


def render(found: Results) -> str:
    """Return the card as Markdown with YAML metadata in front. Raises AdapterError if the results are incomplete."""
    try:
        return _render(found)
    except (jinja2.UndefinedError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise AdapterError(
            f"{found.name}: results.json lacks a value of the card ({error}): train the adapter again."
        ) from error


# Not huggingface_hub.ModelCard.from_template: a missing value would leave a gap there, and texts are not escaped.
def _render(found: Results) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "yaml": _yaml, "fence": fence, "pct": _percent}
    # A literal of one line that both Python and JSON read.
    environment.filters["json"] = functools.partial(json.dumps, ensure_ascii=False)
    environment.filters["extract"] = lambda key, values: values[key]
    template = environment.get_template(_TEMPLATE.name)
    base = _with_architecture(found.base_model)
    text, text_pair = _example(found)
    return template.render(
        results=found,
        training=found.training,
        evaluation=found.evaluation,
        simple_baselines=trained_baselines(found),
        metadata=metadata(found).to_yaml(),
        method=methods.METHODS[found.method],
        location=found.hub_id or f"adapters/{found.name}",
        text=text,
        text_pair=text_pair,
        separator=found.base_model.pair_separator,
        command=command(found),
        pictures=plots.names(found),
        may_number_classes=plots.may_number_classes(found),
        data_on_hub=_is_on_hub(found.dataset),
        base_on_hub=_is_base_on_hub(base),
        max_columns=_MAX_COLUMNS,
        shortcomings=shortcomings(found),
        abstention=abstention.shown(found.evaluation.abstention),
        skipped=[outside_encoder(base.head)] if base.head else ["classifier", "score"],
        dtype="float32" if base.autocast is False else "bfloat16",
        pools_last_token=base.pools_last_token,
        quote=shlex.quote,
        language=_language(found),
        task=tasks.of(found),
        purpose=_PURPOSES[found.task],
        limits=_LIMITS[found.task],
        pipeline_options=_PIPELINE_OPTIONS[found.task],
    )


def _with_architecture(base: BaseFacts) -> BaseFacts:
    """Return what results say about a base model; older ones do not have its architecture."""
    if base.head is not None or base.id not in bases.BASES:
        return base
    architecture = bases.BASES[base.id].architecture
    return dataclasses.replace(
        base,
        head=list(architecture.head),
        autocast=architecture.autocast,
        pools_last_token=architecture.pools_last_token,
    )


def _is_base_on_hub(base: BaseFacts) -> bool:
    return base.revision is not None or base.id in bases.BASES


def _example(found: Results) -> tuple[str, str | None]:
    """Return the text in the card's code; for pairs the second one too."""
    text, text_pair = _DEFAULT_TEXT, _DEFAULT_SECOND_TEXT
    for example in found.evaluation.examples.values():
        if example.text:
            text, text_pair = example.text, example.text_pair
            break
    return text, text_pair if found.dataset.has_pairs else None


def _is_on_hub(dataset: DatasetFacts) -> bool:
    return "/" in dataset.id


def metadata(found: Results) -> ModelCardData:
    """Return the metadata that the Hub reads.

    The base model, the data, every metric with the ends of its interval, examples, and CO2 if it was measured.
    """
    widget = []
    for label, example in found.evaluation.examples.items():
        if example.text and not found.dataset.has_pairs:  # the Hub's widget has one text
            widget.append({"text": example.text, "example_title": label})
    emissions = None
    if found.training.co2_grams is not None:
        emissions = {
            "emissions": found.training.co2_grams,
            "source": "CodeCarbon",
            "training_type": "fine-tuning",
            "hardware_used": found.training.device,
        }
    return ModelCardData(
        **_origin(found.method, found.base_model, found.dataset),
        language=_language(found),
        license=_license(found),
        metrics=[metric.name for metric in tasks.of(found).metrics if metric.name in _HUB_METRICS],
        tags=["adapter-arena", found.method, "text-classification"],
        widget=widget or None,
        co2_eq_emissions=emissions,
        model_name=found.name,
        eval_results=_eval_results(found),
    )


def with_stated_facts(found: Results, stated: StatedFacts) -> Results:
    """Return the results with what the user states; what was stated before remains."""
    return dataclasses.replace(
        found, language=stated.language or found.language, license=stated.license or found.license
    )


def early_metadata(recipe: Recipe, stated: StatedFacts) -> ModelCardData:
    """Return the metadata of a card that are known before the training, to be checked by the Hub."""
    base = BaseFacts(bases.find(recipe.base_model).label, None, "")
    dataset = DatasetFacts(recipe.dataset, "", "local" if Path(recipe.dataset).exists() else "hub")
    if dataset.source == "local":
        dataset.id = Path(recipe.dataset).name
    origin = _origin(recipe.method, base, dataset)
    return ModelCardData(**origin, language=stated.language, license=stated.license)


def _origin(method: str, base: BaseFacts, dataset: DatasetFacts) -> dict:
    """Return the metadata that name the base model and the data."""
    is_full = method == "full"
    relation = "finetune" if is_full else "adapter"
    is_hub_id = known.is_hub_id(base.id)  # the Hub refuses a card with another name, for example of a local folder
    return {
        "base_model": base.id if is_hub_id else None,
        "base_model_relation": relation if is_hub_id else None,
        "library_name": "transformers" if is_full else "peft",
        "pipeline_tag": "text-classification",
        "datasets": [dataset.id] if _is_on_hub(dataset) else None,
    }


def _language(found: Results) -> str | None:
    return found.language or known.language_of(found.dataset)


def _license(found: Results) -> str | None:
    return found.license or known.license_of(found.base_model)


def _eval_results(found: Results) -> list[EvalResult]:
    rows = []

    def add(metric_type: str, name: str, value: float) -> None:
        rows.append(
            EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=found.dataset.id,
                dataset_name=found.dataset.id,
                dataset_split=found.evaluation.split,
                dataset_revision=found.dataset.revision,
                metric_type=metric_type,
                metric_name=name,
                metric_value=float(value),
            )
        )

    for metric in tasks.of(found).metrics:
        value, interval = score_of(found, metric)
        add(metric.name, metric.title, value)
        if interval:
            add(f"{metric.name}_ci95_low", f"{metric.title}, 95 % interval, low", interval[0])
            add(f"{metric.name}_ci95_high", f"{metric.title}, 95 % interval, high", interval[1])
    return rows


def command(found: Results) -> str:
    """Return the command that repeats the run from the card's recipe.yaml, with paths to fill in for local data."""
    words = ["python", "train_space.py", "--recipe", "recipe.yaml"]
    if _is_local(found.dataset):
        words += ["--dataset", f"path/to/{found.dataset.id}"]
    if not _is_base_on_hub(found.base_model):
        words += ["--base-model", f"path/to/{found.base_model.id}"]
    return shlex.join(words)


def _is_local(dataset: DatasetFacts) -> bool:
    if _is_on_hub(dataset):
        return False
    if dataset.source is None:  # results of earlier versions
        return dataset.id != "sample"
    return dataset.source == "local"


def cell(value: object) -> str:
    """Return text of others so that Markdown shows it literally: one line, no markup, no HTML, also in a table."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)


def fence(content: str, language: str = "") -> str:
    """Return a Markdown code block that its content cannot end: the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{content.strip()}\n{ticks}"


def _yaml(content: dict) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def write(found: Results, folder: Path) -> None:
    """Write the pictures and README.md into the adapter folder, over the template card that PEFT leaves there."""
    plots.write(found, folder)
    (folder / "README.md").write_text(render(found), encoding="utf-8")


def snippets(found: Results) -> dict[str, str]:
    """Return the code on the card by its purpose: `peft`, `pipeline`, `client`, `curl`, `recipe`, `command`."""
    _, _, usage = render(found).partition("## Use it")
    code_block = re.compile(r"^(`{3,})\w*\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
    blocks = [content for _, content in code_block.findall(usage)]
    return dict(zip(_SNIPPETS, blocks))


# Not huggingface_hub.ModelCard: it raises an error for malformed metadata, and cards of others are shown too.
def body(folder: Path, limit: int) -> str | None:
    """Return the card for a page: no metadata, pictures inlined, truncated after `limit` characters; None if missing."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        text = text[:limit] + "\n\n… truncated: the card is too long to show."
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return re.sub(r"\]\(([\w-]+\.png)\)", lambda link: f"]({_inline(folder / link[1])})", text)


def _inline(picture: Path) -> str:
    """Return a picture as a data URL, or its name if it is missing or too large."""
    if not picture.is_file() or picture.stat().st_size > _MAX_PICTURE_BYTES:
        return picture.name
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def table(all_results: list[Results]) -> str:
    """Return the measurements in Markdown: a table for each task, then the machines.

    A table has a row for each adapter, and then for each data set those that are not fine-tuned.
    """
    by_task: dict[str, list[Results]] = {}
    devices = {}
    for found in all_results:
        by_task.setdefault(found.task, []).append(found)
        devices[f"`{found.name}`"] = found.training.device
    parts = [_task_table(tasks.TASKS[task], group) for task, group in by_task.items()]
    note = machines(devices)
    return "\n\n".join([*parts, note] if note else parts)


def _task_table(task: tasks.Task, group: list[Results]) -> str:
    """Return the table of adapters of one task."""
    objective, *others = task.table_metrics
    titles = [f"{objective.heading} (95 % interval)", *(metric.heading for metric in others)]
    lines = [
        f"| adapter | trained parameters | of all | train | texts/s | peak memory | {' | '.join(titles)} |",
        f"|---|---:|---:|---:|---:|---:|{'---:|' * len(titles)}",
    ]
    last_of_dataset = {}
    without_training: dict[str, list[str]] = {}
    for found in group:
        dataset = found.dataset.id
        lines.append(_table_row(found))
        last_of_dataset[dataset] = found
        without_training[dataset] = _baseline_rows(found) or without_training.get(dataset, [])
    for dataset, found in last_of_dataset.items():
        cells = []
        for metric in task.table_metrics:
            value, _ = untrained_score_of(found, metric)
            cells.append("" if value is None else f" {metric.write(value)}")
        lines += [*without_training[dataset], f"| untrained, {dataset} | 0 | | | | |{' |'.join(cells)} |"]
    return "\n".join(lines)


def _baseline_rows(found: Results) -> list[str]:
    """Return a row for the constant answer, and for each baseline without fine-tuning that these results have."""
    rows = []
    constant = found.evaluation.constant
    if constant is not None:
        title = tasks.of(found).constant.capitalize()
        rows.append(f"| {title}, {found.dataset.id} | | | | | |{_score_cells(found, constant.scores)} |")
    for key, baseline in found.evaluation.baselines.items():
        title = baseline_titles(found.task)[key]
        minutes = "" if baseline.c is None else f" {baseline.seconds / 60:.1f} min"
        rows.append(f"| {title}, {found.dataset.id} | | |{minutes} | | |{_score_cells(found, baseline)} |")
    return rows


def _score_cells(found: Results, measured: Evaluation | SimpleBaseline | dict[str, Score], mark: str = "") -> str:
    """Return the cells of the task's metrics, the first with its interval and with `mark` around its value."""
    cells = []
    for metric in tasks.of(found).table_metrics:
        value, interval = score_in(measured, metric)
        if value is None:
            cells.append("")
        elif cells:
            cells.append(f" {metric.write(value)}")
        else:
            low, high = map(metric.number, interval)
            cells.append(f" {mark}{metric.write(value)}{mark} ({low}–{high})")
    return " |".join(cells)


def _table_row(found: Results) -> str:
    training = found.training
    cells = [
        f"`{found.name}`",
        f"{training.trainable_params:,}",
        f"{training.trainable_percent:.2f} %",
        f"{training.seconds / 60:.1f} min",
        f"{training.samples_per_second:.1f}",
        f"{training.peak_memory_mb / 1000:.1f} GB",
    ]
    return f"| {' | '.join(cells)} |{_score_cells(found, found.evaluation, mark='**')} |"


def refresh(root: Path) -> None:
    """Write every card under `root/adapters` again from its results."""
    for folder in store.folders(root / store.FOLDER):
        found = read(folder)
        if found:
            write(found, folder)


if __name__ == "__main__":  # python -m adapter_arena.adapters.cards, after the template or a result changed
    refresh(Path(__file__).parent.parent.parent)
