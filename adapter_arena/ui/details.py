"""The details of a row in Compare as HTML: the words that moved the adapter's answer, and the facts about it."""

import html

from adapter_arena.serve.entries import Entry
from adapter_arena.serve.explain import Explanation
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import fragments, palette

_MAX_BARS = 6
"""Number of labels whose probabilities are shown."""
_LINE = '<span class="skeleton" aria-hidden="true"></span>'
PENDING = f'<div class="lines">{5 * _LINE}</div>'
"""Shown until the first answer is explained."""


def render(entry: Entry, title: str, prediction: Prediction, explanation: Explanation | str) -> str:
    """Return the words that moved an adapter's answer, or why there are none, and the facts about the answer."""
    if isinstance(explanation, str):
        words = fragments.notice(explanation, "error")
    else:
        weighted = explanation.words
        if explanation.words_pair is not None:
            weighted = [*weighted, ("\n", 0.0), *explanation.words_pair]
        words = fragments.words(weighted, explanation.label, explanation.is_number)
    return f"{_heading(entry, title)}{words}{_bars(prediction)}{fragments.facts(_facts(entry, prediction))}"


def _heading(entry: Entry, title: str) -> str:
    return f"<h3>{palette.dot(entry.method)}<span>Words that moved {html.escape(title)}</span></h3>"


def _bars(prediction: Prediction) -> str:
    """Return the probabilities if there are more than two labels: of two, the table has them."""
    if prediction.confidence is None or len(prediction.scores) < 3:
        return ""
    given = [prediction.label] if prediction.labels is None else prediction.labels
    most_likely = sorted(prediction.scores.items(), key=lambda item: -item[1])[:_MAX_BARS]
    bars = "".join(fragments.bar(share, name, quiet=name not in given) for name, share in most_likely)
    return f'<div class="bars">{bars}</div>'


def _facts(entry: Entry, prediction: Prediction) -> dict[str, str]:
    found = {
        "Tokens": f"{prediction.tokens:,}",
        "Text": "truncated in the middle" if prediction.truncated else "read completely",
        "Adapter": entry.name,
        "Base model": entry.base_model or "unknown",
    }
    if entry.revision:
        found["Commit"] = entry.revision[:8]
    return found


def not_loaded(entry: Entry, title: str) -> str:
    """Return the details of an adapter that has to be loaded first: what that costs."""
    need = entry.base_note if entry.loads_base else f"a download of {entry.name} from the Hub"
    note = fragments.notice(f"{title} needs {need}. Press Load in its row.")
    return f"<h3>{palette.dot(entry.method)}<span>{html.escape(title)}</span></h3>{note}"
