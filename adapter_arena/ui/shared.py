"""Functions that the tabs and the API share: the choice of an adapter, and errors as the page shows them."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from adapter_arena import tasks
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.served import Prediction
from adapter_arena.texts import Text

PRIVATE = {"api_visibility": "private", "show_progress": "minimal"}
"""Options of the page's own events, which are no part of the API."""

ADAPTER_CHOICE = "adapter-choice"
"""Class of the lists of adapters, which get a new one as soon as its training on the page is done."""


def title(entry: Entry) -> str:
    """Return a short name of an adapter: its method and dataset, and its repo if it comes from the Hub."""
    parts = []
    if entry.source == "hub" or entry.dataset is None:
        parts.append(entry.name)
    if entry.method != "unknown":
        parts.append(entry.title)
    if entry.dataset:
        parts.append(entry.dataset)
    return " · ".join(parts)


def adapter_choices(catalogue: Catalogue) -> list[tuple[str, str]]:
    """Return the label and the name of every adapter, see `labelled`."""
    return labelled(catalogue.entries)


def labelled(entries: list[Entry]) -> list[tuple[str, str]]:
    """Return the label and the name of adapters: method, dataset and score, and the name if others look alike."""
    titles = [title(entry) for entry in entries]
    choices = []
    for entry, text in zip(entries, titles):
        label = f"{text} · {_score_text(entry)}"
        if titles.count(text) > 1:
            label += f" · {entry.name}"
        choices.append((label, entry.name))
    return choices


def _score_text(entry: Entry) -> str:
    """Return the accuracy of an adapter, or the score that ranks adapters of its task with its name."""
    if entry.headline is None:
        return "accuracy unknown"
    if entry.task == tasks.SINGLE_LABEL:
        return f"{entry.headline:.1%}"
    metric = tasks.TASKS[entry.task].objective
    return f"{metric.title} {metric.write(entry.headline)}"


def adapter_dropdown(catalogue: Catalogue, elem_id: str) -> gr.Dropdown:
    """Return a drop-down list of the adapters, with the first one selected."""
    choices = adapter_choices(catalogue)
    selected = choices[0][1] if choices else None
    return gr.Dropdown(choices, value=selected, label="Adapter", elem_id=elem_id, elem_classes=ADAPTER_CHOICE)


def user_error(error: ArenaError | str) -> gr.Error:
    """Return an error that Gradio shows or sends as one line, without a traceback in the log."""
    return gr.Error(str(error), print_exception=False)


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise gr.Error in place of ArenaError."""
    try:
        yield
    except ArenaError as error:
        raise user_error(error) from error


def with_pair(text: str, text_pair: str | None) -> Text:
    """Return the text, or both as a pair if there is a second one."""
    return (text, text_pair) if text_pair else text


def takes_pairs(catalogue: Catalogue, name: str | None) -> bool:
    """Return whether the adapter of that name is known to classify pairs of texts."""
    return any(entry.name == name and entry.takes_pairs for entry in catalogue.entries)


def predict_one(catalogue: Catalogue, text: Text, adapter: str | None, whole_text: bool = False) -> Prediction:
    """Return the prediction for one text. Raises gr.Error."""
    with user_errors():
        prediction = catalogue.predict([text], adapter, whole_text)[0]
        if isinstance(prediction, ArenaError):
            raise prediction
    return prediction
