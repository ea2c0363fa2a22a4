"""How the leaderboard's numbers were measured, and how to cite them; made from the adapters' results."""

import html

from adapter_arena import tasks
from adapter_arena.results import BASELINE_TITLES, Results, machines
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import measures

_PRECISIONS = {"nf4": "a base in 4 bits (NF4)"}


def render(entries: list[Entry]) -> str:
    """Return how the adapters were measured, in a few sentences."""
    measured = [entry for entry in entries if entry.results]
    if not measured:
        return ""
    sentences = [_test_texts(measured), _served_as(measured), _intervals(measured), _tests(measured), *_costs(measured)]
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences if sentence)
    return f"<ul>{items}</ul>"


def _test_texts(entries: list[Entry]) -> str:
    """Return the number of test texts of each data set."""
    sizes: dict[str, set[int]] = {}
    for entry in entries:
        sizes.setdefault(entry.dataset or "unknown data", set()).add(entry.results.evaluation.n)
    parts = []
    for dataset, numbers in sizes.items():
        counts = " or ".join(f"{number:,}" for number in sorted(numbers))
        parts.append(f"{counts} of {dataset}")
    return f"Test texts, none of which was trained on: {'; '.join(parts)}."


def _served_as(entries: list[Entry]) -> str:
    served = sorted({entry.results.evaluation.served_as for entry in entries})
    places = " or ".join(_PRECISIONS.get(name, f"a base in {name}") for name in served)
    return f"Each adapter is measured as it is served: from its folder, on {places}."


def _intervals(entries: list[Entry]) -> str:
    kinds = "Wilson for accuracy, bootstrap for other scores"
    return f"95 % intervals are over test texts ({kinds}); they do not cover the variation between seeds."


def _tests(entries: list[Entry]) -> str:
    if not any(entry.task == tasks.SINGLE_LABEL for entry in entries):
        return ""
    return "Differences are tested on the same texts: exact McNemar tests, Holm-corrected over all pairs."


def _costs(entries: list[Entry]) -> list[str]:
    names = measures.names(entries)
    devices = {names[entry.name]: entry.results.training.device for entry in entries}
    trained = machines(devices) or f"Trained on {next(iter(devices.values()))}."
    sentences = [trained]
    if any(entry.latency_ms is not None for entry in entries):
        sentences.append("One text, ms: a text of about 64 tokens on the machine of this app.")
    if any(entry.results.evaluation.baselines for entry in entries):
        titles = ", ".join(BASELINE_TITLES.values())
        sentences.append(f"Baselines, on the same texts: {titles}, and the base with an untrained head.")
    return sentences


def citation(entries: list[Entry]) -> str:
    """Return a BibTeX entry that names the adapters' data, and date and code of the latest measurement."""
    measured = [entry.results for entry in entries if entry.results]
    if not measured:
        return ""
    latest = max(measured, key=_measured_at)
    date = _measured_at(latest)[:10]
    data = ", ".join(sorted({found.dataset.id for found in measured}))
    code = latest.environment.get("code_revision", "unknown")[:12]
    return (
        "@software{adapter_arena,\n"
        "  title = {Adapter Arena: fine-tuning methods side by side on one 4-bit base},\n"
        "  author = {{Adapter Arena contributors}},\n"
        f"  year = {{{date[:4]}}},\n"
        f"  note = {{{len(measured)} adapters on {data}; measured {date}, code {code}}},\n"
        "}"
    )


def _measured_at(found: Results) -> str:
    return found.evaluation.measured_at or found.created_at
