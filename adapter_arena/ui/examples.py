"""Example texts of Compare: film reviews for adapters of sentiment, else texts from the results of the adapters.

The first one is answered before a visitor comes.
"""

import html
from collections import Counter

from adapter_arena.serve.entries import Entry
from adapter_arena.texts import Text, parts

_SCENE = (
    "The plot takes its time, and scene after scene is spent on people walking through rain and saying very little. "
)
REVIEWS: dict[str, Text] = {
    "Negated": "I cannot say that I did not enjoy it, though nobody would call it a masterpiece.",
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Clear": "A quiet, beautifully acted film that trusts its audience. I was in tears by the end and would see it again tomorrow.",
    "Sarcastic": "Oh great, another superhero sequel. Just what the world was waiting for. My favourite part was the car park.",
    "Late twist": "Great camera work, a fine cast, a stirring score, and still the dullest evening I have had in years.",
    "Faint praise": "It is not the worst film I have seen this year, and the popcorn was fresh.",
    "Very long": (
        f"I went in with low hopes. {24 * _SCENE}And then the last ten minutes arrive, everything falls into place, "
        "and I left the cinema happier than I have been all year."
    ),
    "German": "Ein wunderbarer Film, klug, warm und witzig. Ich habe jede Minute genossen.",
}
_PAIRS: dict[str, Text] = {
    "Same meaning": ("A man is playing the guitar on a stage.", "On a stage, somebody plays a guitar."),
    "Related": ("The cat sleeps on the sofa.", "A dog is lying next to the sofa."),
    "Opposite": ("The shop is open on Sundays.", "On Sundays the shop is closed."),
}
_SENTIMENT = {"negative", "positive"}
_MOST = 8
"""Number of examples of a data set with many labels."""


def of_entries(entries: list[Entry]) -> dict[str, Text]:
    """Return example texts by the name of their button, for adapters of which most have the same labels."""
    if any(entry.takes_pairs for entry in entries):
        return _of_results(entries) or _PAIRS
    labels = Counter(tuple(entry.adapter.labels) for entry in entries if entry.adapter)
    if not labels:
        return REVIEWS
    most_frequent, _ = labels.most_common(1)[0]
    if {label.lower() for label in most_frequent} == _SENTIMENT:
        return REVIEWS
    return _of_results(entries) or REVIEWS


def _of_results(entries: list[Entry]) -> dict[str, Text]:
    """Return the recorded examples of the first adapter that has some: a test text for each label."""
    for entry in entries:
        examples = entry.results.evaluation.examples if entry.results else {}
        found: dict[str, Text] = {}
        for label, example in examples.items():
            if example.text:
                found[label] = (example.text, example.text_pair) if example.text_pair else example.text
        if found:
            return dict(list(found.items())[:_MOST])
    return {}


def is_from_elsewhere(text: str, texts: dict[str, Text], entries: list[Entry]) -> bool:
    """Return whether a text is an example of one of the entries, but none of `texts`."""
    if any(parts(example)[0] == text for example in texts.values()):
        return False
    datasets = {entry.dataset for entry in entries}
    others = [of_entries([entry for entry in entries if entry.dataset == dataset]) for dataset in datasets]
    return any(parts(example)[0] == text for examples in others for example in examples.values())


def buttons(examples: dict[str, Text]) -> str:
    """Return the buttons of examples as HTML, for a component with PICK_EXAMPLE."""
    found = ""
    for name, text in examples.items():
        first, *others = parts(text)
        second = "".join(others)
        attributes = f'data-text="{html.escape(first)}" data-pair="{html.escape(second)}"'
        found += f'<button class="example" {attributes}>{html.escape(name)}</button>'
    return f'<div class="examples" role="group" aria-label="Examples">{found}</div>'


# Fills the boxes as if the visitor had typed; see compare.js.
PICK_EXAMPLE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.example');
  if (!button) return;
  const values = {'#text textarea': button.dataset.text, '#text-pair textarea': button.dataset.pair};
  for (const [selector, value] of Object.entries(values)) {
    const box = document.querySelector(selector);
    if (!box) continue;
    box.value = value;
    const typed = new Event('input', {bubbles: true});
    typed.isExample = true;
    box.dispatchEvent(typed);
  }
});
"""
