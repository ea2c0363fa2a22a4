"""The answers of Compare as HTML: a row for each adapter, and who disagrees."""

import html
from collections import Counter, defaultdict
from dataclasses import dataclass

from adapter_arena import tasks
from adapter_arena.serve.catalogue import UNTRAINED
from adapter_arena.serve.entries import Answer, Entry
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import fragments, palette
from adapter_arena.ui.fragments import Column

_MAX_NAMES = 3
"""Number of adapters that the line of who disagrees names one by one."""
_PENDING = '<span class="skeleton" aria-hidden="true"></span>'


@dataclass(frozen=True)
class Row:
    """An adapter in the table. Without `answer` and `problem` its answer is still to come."""

    entry: Entry
    title: str
    answer: Answer | None = None
    problem: str | None = None
    """Why there is no answer."""
    is_odd: bool = False
    """Whether most adapters with the same labels give another answer."""

    @property
    def prediction(self) -> Prediction | None:
        """The answer, if there is one."""
        return self.answer and self.answer.prediction

    @property
    def needs_loading(self) -> bool:
        """Whether the adapter has to be loaded before it can answer."""
        return not is_loaded(self.entry)


def is_loaded(entry: Entry) -> bool:
    """Return whether an adapter answers without a download and without loading a base model."""
    return entry.adapter is not None and not entry.loads_base


def rows(
    entries: list[Entry], answers: list[Answer] | None = None, problems: dict[str, str] | None = None
) -> list[Row]:
    """Return a row for each adapter, in their order; `problems` are reasons by adapter why it has no answer."""
    by_name = {answer.name: answer for answer in answers or []}
    majority = _majorities(answers or [])
    titles = _titles(entries)
    found = []
    for entry in entries:
        answer = by_name.get(entry.name)
        problem = (problems or {}).get(entry.name) or (answer and answer.error)
        found.append(Row(entry, titles[entry.name], answer, problem, _is_odd(answer, majority)))
    return found


def _titles(entries: list[Entry]) -> dict[str, str]:
    """Return the name of each adapter in the table: its method, with the data set and the name where these differ."""
    several_datasets = len({entry.dataset for entry in entries}) > 1
    titles = {}
    for entry in entries:
        parts = [entry.title if entry.method != "unknown" else entry.name]
        if several_datasets and entry.dataset:
            parts.append(entry.dataset)
        titles[entry.name] = " · ".join(parts)
    counts = Counter(titles.values())
    return {name: title if counts[title] == 1 else name for name, title in titles.items()}


def _majorities(answers: list[Answer]) -> dict[tuple[str, ...], str | None]:
    """Return the most frequent answer of trained adapters by the labels that they choose from; None if two are."""
    counts: dict[tuple[str, ...], Counter] = defaultdict(Counter)
    for answer in answers:
        prediction = answer.prediction
        if prediction and prediction.confidence is not None and answer.name != UNTRAINED:  # numbers differ always
            counts[tuple(prediction.scores)][prediction.label] += 1
    majorities = {}
    for labels, counter in counts.items():
        first, *others = counter.most_common(2)
        is_tie = bool(others) and others[0][1] == first[1]
        majorities[labels] = None if is_tie else first[0]
    return majorities


def _is_odd(answer: Answer | None, majorities: dict[tuple[str, ...], str | None]) -> bool:
    if answer is None or answer.prediction is None:
        return False
    label = majorities.get(tuple(answer.prediction.scores))
    return label is not None and answer.prediction.label != label


# ------------------------------------------------------------ who disagrees


def summary(found: list[Row]) -> str:
    """Return a line that says which adapters disagree with the others; HTML, "" without two answers."""
    answered = [row for row in found if row.prediction and row.prediction.confidence is not None]
    numbers = [row.prediction for row in found if row.prediction and row.prediction.confidence is None]
    parts = [_range(numbers)] if len(numbers) > 1 else []
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in answered:
        groups[tuple(row.prediction.scores)].append(row)
    for group in groups.values():
        if len(group) > 1:
            parts.append(_agreement(group))
    return fragments.notice(" ".join(parts)) if parts else ""


def _range(numbers: list[Prediction]) -> str:
    values = [value for prediction in numbers for value in prediction.scores.values()]
    return f"The answers are from {min(values):.4g} to {max(values):.4g}."


def _agreement(group: list[Row]) -> str:
    by_answer: dict[str, list[str]] = defaultdict(list)
    for row in group:
        by_answer[fragments.answer_text(row.prediction)].append(row.title)
    ordered = sorted(by_answer.items(), key=lambda item: -len(item[1]))
    if len(ordered) == 1:
        return f"All {len(group)} adapters agree: {ordered[0][0]}."
    (first, agreeing), *others = ordered
    if len(others[0][1]) == len(agreeing):
        return f"The adapters are split: {'; '.join(_saying(titles, label) for label, titles in ordered)}."
    return f"{'; '.join(_saying(titles, label) for label, titles in others)}; the other {len(agreeing)} say {first}."


def _saying(titles: list[str], label: str) -> str:
    if len(titles) > _MAX_NAMES:
        return f"{len(titles)} say {label}"
    verb = "says" if len(titles) == 1 else "say"
    names = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
    return f"{names} {verb} {label}"


# ------------------------------------------------------------ the table


def table(found: list[Row], untrained: Answer | None = None, chosen: str | None = None) -> str:
    """Return the table, with the untrained base below the adapters; `chosen` is the selected row's adapter."""
    columns = [*_COLUMNS, _score_column(found)]
    foot = [_untrained_cells(untrained)] if untrained else []
    content = fragments.table(found, columns, lambda row: row.entry.name, lambda row: row.is_odd, foot)
    return f'<div class="answers" data-chosen="{html.escape(chosen or "")}">{content}</div>'


def _untrained_cells(answer: Answer) -> list[str]:
    title = f"{palette.dot(None)}Untrained base"
    if answer.prediction is None:
        return [title, _PENDING, "", "0", "–", "", "–"]
    bar = "–" if answer.prediction.confidence is None else fragments.bar(answer.prediction.confidence, quiet=True)
    return [title, _label_cell(answer.prediction), bar, "0", "–", f"{answer.milliseconds:,.0f}", "–"]


def untrained_pending() -> Answer:
    """Return the row of the untrained base before it has answered."""
    return Answer(UNTRAINED, "Untrained base", UNTRAINED, None, None, 0.0, None, 0, None)


def _answer_cell(row: Row) -> str:
    if row.problem:
        return fragments.notice(row.problem, "error")
    if row.prediction:
        return _label_cell(row.prediction)
    return _load_cell(row.entry) if row.needs_loading else _PENDING


def _label_cell(prediction: Prediction) -> str:
    text = html.escape(fragments.answer_text(prediction))
    label = f'<span class="answer" title="{text}">{text}</span>'
    if prediction.confidence is None or prediction.labels is not None:
        return label
    return f"{label} {fragments.confidence_chip(prediction.confidence)}"


def _load_cell(entry: Entry) -> str:
    """Return a button that loads an adapter, with what that costs."""
    name = html.escape(entry.name)
    return f'<button class="load" data-load="{name}">Load</button> <small>{html.escape(price(entry))}</small>'


def price(entry: Entry) -> str:
    """Return what loading an adapter costs: its base model and its size in memory, or a download."""
    if not entry.loads_base:
        return "from the Hub"
    base = (entry.base_model or "unknown base").split("/")[-1]
    if entry.base_to_load_mb is None:
        return f"{base}, size checked first"
    return f"{base}, {entry.base_to_load_mb:,.0f} MB"


def _confidence(row: Row) -> float | None:
    return row.prediction and row.prediction.confidence


def _confidence_cell(row: Row) -> str:
    if row.prediction is None:
        return "" if row.problem or row.needs_loading else _PENDING
    return "–" if row.prediction.confidence is None else fragments.bar(row.prediction.confidence)


def _milliseconds(row: Row) -> float | None:
    return row.answer.milliseconds if row.prediction else row.entry.latency_ms


def _milliseconds_cell(row: Row) -> str:
    milliseconds = _milliseconds(row)
    if row.answer is None and not row.needs_loading:
        return ""  # another text in its place would count as a layout shift
    return "–" if milliseconds is None else f"{milliseconds:,.0f}"


def _megabytes_cell(row: Row) -> str:
    return "–" if row.entry.megabytes is None else f"{row.entry.megabytes:,.1f}"


_COLUMNS = [
    Column(
        "Adapter",
        lambda row: f"{palette.dot(row.entry.method)}{html.escape(row.title)}",
        lambda row: row.title,
        number=False,
        less_first=True,
    ),
    Column("Answer", _answer_cell, lambda row: row.prediction and row.prediction.label, number=False),
    Column("Confidence", _confidence_cell, _confidence),
    Column(
        "Trained",
        lambda row: fragments.count(row.entry.trainable_params),
        lambda row: row.entry.trainable_params,
        less_first=True,
    ),
    Column("MB", _megabytes_cell, lambda row: row.entry.megabytes, less_first=True),
    Column("ms", _milliseconds_cell, _milliseconds, less_first=True),
]


def _score_column(found: list[Row]) -> Column:
    """Return the column of the measured score, which has the metric's name if all adapters have one task."""
    names = {row.entry.task for row in found}
    title = tasks.TASKS[names.pop()].objective.title if len(names) == 1 else "Score"
    return Column(title, _score_cell, lambda row: row.entry.headline)


def _score_cell(row: Row) -> str:
    score = row.entry.headline
    return "–" if score is None else f"{tasks.TASKS[row.entry.task].objective.write(score)}"
