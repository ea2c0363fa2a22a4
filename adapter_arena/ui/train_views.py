"""What the tab Train shows before a training: a file's contents, and what the training will take."""

import html
import math

from adapter_arena import machine, tasks
from adapter_arena.jobs.choices import TITLES
from adapter_arena.jobs.dataset import Contents
from adapter_arena.jobs.plan import PlannedRun
from adapter_arena.ui import fragments

_MAX_LABELS = 8
_MAX_NOTES = 6
_FEW_ROWS = 50
_FIELDS = {
    "--text-column": "the field Text",
    "--text-pair-column": "the field Second text",
    "--label-column": "the field Label",
    "--n-train": "Rows",
    "--n-test": "at most",
    "--n-validation": "at most",
    "--epochs": "Epochs",
    "--name": "Name",
    "with --resume": "with Resume",
    "; --task overrides": "",
}
"""What the page has in place of a flag of the command line."""
_KINDS = {
    tasks.SINGLE_LABEL: "{n} classes",
    tasks.MULTI_LABEL: "{n} labels, several a row",
    tasks.REGRESSION: "a number a row",
}


def contents(name: str, found: Contents) -> str:
    """Return what was read from a file, or what is missing."""
    size = f"{found.rows:,} rows, {len(found.columns):,} columns"
    head = f"<h3>{html.escape(name)}</h3>"
    if found.problem:
        return head + fragments.notice(size) + fragments.notice(in_words_of_the_page(found.problem), "error")
    kind = _KINDS[found.task].format(n=len(found.labels))
    splits = ", ".join(
        f"{rows:,} {what}" for what, rows in zip(("to train", "to validate", "to test"), found.splits.values())
    )
    lines = fragments.notice(f"{size}: {kind}. {splits}.")
    if found.removed != "no rows":
        lines += fragments.notice(f"Not used: {found.removed}.")
    return head + lines + _labels(found) + _notes(found)


def in_words_of_the_page(text: str) -> str:
    """Return a message of the trainer with the names of this page's fields in place of flags."""
    for flag, words in _FIELDS.items():
        text = text.replace(flag, words)
    return text


def _labels(found: Contents) -> str:
    """Return a bar for the share of each label among the training rows; of many the most frequent and the rarest."""
    if not found.counts:
        return ""
    by_count = sorted(zip(found.counts, found.labels), reverse=True)
    shown = by_count if len(by_count) <= _MAX_LABELS else [*by_count[: _MAX_LABELS - 1], by_count[-1]]
    total = max(1, found.splits["train"])
    bars = "".join(fragments.bar(count / total, f"{label} ({count:,})") for count, label in shown)
    left_out = len(by_count) - len(shown)
    return bars + (fragments.notice(f"and {left_out:,} more") if left_out else "")


def _notes(found: Contents) -> str:
    warnings = list(found.notes)
    if found.counts and min(found.counts) < _FEW_ROWS:
        rarest = found.labels[found.counts.index(min(found.counts))]
        warnings.insert(0, f"{rarest} has {min(found.counts):,} training rows: answers for it will be poor.")
    items = "".join(f"<li>{html.escape(in_words_of_the_page(note))}</li>" for note in warnings[:_MAX_NOTES])
    if len(warnings) > _MAX_NOTES:
        items += f"<li>and {len(warnings) - _MAX_NOTES:,} more</li>"
    return f'<ul class="notes">{items}</ul>' if items else ""


def plan(planned: list[PlannedRun], steps: int, seconds: float | None, max_seconds: float) -> str:
    """Return about how long a training takes, how much memory, and what is trained."""
    available = machine.total_memory_mb()
    most = max(planned, key=lambda run: run.megabytes)
    trainable = sorted({run.trainable for run in planned})
    trained = " to ".join(dict.fromkeys(fragments.count(number) for number in (trainable[0], trainable[-1])))
    facts = {
        "Time": "known once it runs" if seconds is None else f"about {duration(seconds)}",
        "Memory": f"up to {most.megabytes / 1000:.1f} of {available / 1000:.1f} GB",
        "Trained parameters": f"{trained} of {fragments.count(most.total)}",
    }
    if len(planned) > 1:
        facts["Runs"] = f"{len(planned)}, {steps:,} steps in all"
    warnings = ""
    if most.megabytes > available:
        warnings += fragments.notice(
            f"{TITLES[most.method]} may need more memory than this machine has: choose a smaller base model or QLoRA.",
            "error",
        )
    if max_seconds and seconds and seconds > max_seconds:
        warnings += fragments.notice(
            f"It will be stopped after {duration(max_seconds)} (ARENA_TRAIN_MINUTES): choose fewer rows or epochs.",
            "error",
        )
    return fragments.facts(facts) + warnings


def duration(seconds: float) -> str:
    """Return `40 s`, `12 min` or `1 h 5 min`."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
