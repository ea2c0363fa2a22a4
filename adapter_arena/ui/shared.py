"""What the tabs and the API have in common: the adapters as choices, and errors as the page shows them."""

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue, Entry
from adapter_arena.serve.served import Prediction

PRIVATE = {"api_visibility": "private", "show_progress": "minimal"}


def title(entry: Entry) -> str:
    """An adapter in a few words: method and dataset, and its repo when it is the Hub's."""
    parts = [entry.title if entry.method != "unknown" else None, entry.dataset]
    if entry.source == "hub" or entry.dataset is None:
        parts.insert(0, entry.name)
    return " · ".join(part for part in parts if part)


def adapter_choices(catalogue: Catalogue) -> list[tuple[str, str]]:
    """What is shown and what is meant: method, dataset, accuracy; and the adapter's name."""
    entries = catalogue.entries
    titles = [title(entry) for entry in entries]
    accuracies = ["accuracy unknown" if e.accuracy is None else f"{e.accuracy:.1%}" for e in entries]
    return [
        (f"{said} · {accuracy}" + (f" · {e.name}" if titles.count(said) > 1 else ""), e.name)
        for e, said, accuracy in zip(entries, titles, accuracies)
    ]


def adapter_dropdown(catalogue: Catalogue, elem_id: str) -> gr.Dropdown:
    """The choice of an adapter, the first one chosen."""
    choices = adapter_choices(catalogue)
    return gr.Dropdown(choices, value=choices[0][1] if choices else None, label="Adapter", elem_id=elem_id)


def refused(error: ArenaError | str) -> gr.Error:
    """The error as a clean answer: one line, no trace in the log, shown as a toast or sent to the caller."""
    return gr.Error(str(error), print_exception=False)


def predict_one(catalogue: Catalogue, text: str, adapter: str | None, whole_text: bool = False) -> Prediction:
    """One prediction; every reason against it becomes a clean error answer."""
    try:
        prediction = catalogue.predict([text], adapter, whole_text)[0]
    except ArenaError as error:
        prediction = error
    if isinstance(prediction, ArenaError):
        raise refused(prediction)
    return prediction
