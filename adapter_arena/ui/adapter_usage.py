"""The sub-tab Use it of Adapters: the code of the model card, one piece at a time."""

import json
import shlex

from adapter_arena.adapters import cards
from adapter_arena.serve.entries import Entry

TITLES = {
    "PEFT": ("peft", "python"),
    "Pipeline": ("pipeline", "python"),
    "This app, in Python": ("client", "python"),
    "This app, with curl": ("curl", "shell"),
    "Train it again": ("command", "shell"),
    "recipe.yaml": ("recipe", "yaml"),
}
"""Name in `cards.snippets` and language of the code, by the title that a visitor chooses."""
_TEXT = "A quiet, moving film."


def titles(entry: Entry) -> list[str]:
    """Return the titles of the code there is; without results it is that for this app."""
    if entry.results:
        return list(TITLES)
    return [title for title, (name, _) in TITLES.items() if name in _snippets(entry)]


def code(entry: Entry, title: str) -> tuple[str, str]:
    """Return the code of that title and its language."""
    name, language = TITLES[title]
    return _snippets(entry)[name], language


def _snippets(entry: Entry) -> dict[str, str]:
    if entry.results:
        return cards.snippets(entry.results)
    name = json.dumps(entry.name)
    request = shlex.quote(json.dumps({"data": [_TEXT, entry.name]}))
    address = "http://127.0.0.1:7860"
    client = (
        f'from gradio_client import Client\n\nclient = Client("{address}")\n'
        f'print(client.predict({json.dumps(_TEXT)}, {name}, api_name="/predict"))'
    )
    curl = f"curl -s {address}/gradio_api/run/predict -H 'Content-Type: application/json' -d {request}"
    return {"client": client, "curl": curl}
