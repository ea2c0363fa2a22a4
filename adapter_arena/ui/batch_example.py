"""The example file of Batch: a few made rows that fit the labels of an adapter."""

import html

import pandas

from adapter_arena import tasks
from adapter_arena.adapters.store import Adapter
from adapter_arena.data.labels import match_labels
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column

ROWS = 12
_ROWS_SHOWN = 4
_REVIEWS = [
    ("A warm, funny film with a cast that clearly enjoys every scene.", "positive"),
    ("Two hours of my life that I will not get back.", "negative"),
    ("I expected little and left the cinema smiling.", "positive"),
    ("The camera work is lovely, but the story never starts.", "negative"),
    ("Not bad at all: the ending surprised me, and I cried.", "positive"),
    ("The jokes fall flat, the villain is a cliché, and it ends where it should begin.", "negative"),
    ("Slow, strange and unforgettable.", "positive"),
    ("Oh great, another sequel that nobody asked for.", "negative"),
    ("My daughter wants to see it again tomorrow, and so do I.", "positive"),
    ("If you cannot sleep, this is the film for you.", "negative"),
    ("It could have been a disaster. It is anything but.", "positive"),
    ("A fine cast wasted on a script without a single idea.", "negative"),
]
_NEWS = [
    ("The two governments signed a ceasefire after a week of talks in the capital.", "World"),
    ("The striker scored twice in the final minutes to win the cup.", "Sports"),
    ("Shares of the airline fell by a tenth after it cut its forecast for the year.", "Business"),
    ("The probe sent back its first pictures of the moon's far side.", "Sci/Tech"),
    ("Voters queued for hours in the first election since the war.", "World"),
    ("The coach resigned after a fifth defeat in a row.", "Sports"),
    ("The central bank left its interest rate unchanged.", "Business"),
    ("A new browser blocks pop-ups and warns of forged pages.", "Sci/Tech"),
    ("Aid reached the flooded villages three days after the storm.", "World"),
    ("She ran the marathon in record time in spite of the heat.", "Sports"),
    ("The chip maker will build a second plant and hire 900 people.", "Business"),
    ("The league sold the rights to its games to a phone company.", "Business"),
]
_PAIRS = [
    ("A man plays the guitar on a stage.", "A man plays an instrument.", "entailment"),
    ("A man plays the guitar on a stage.", "Nobody plays an instrument.", "contradiction"),
    ("A man plays the guitar on a stage.", "The concert is sold out.", "neutral"),
    ("Two children build a sandcastle at the sea.", "Children are on a beach.", "entailment"),
    ("Two children build a sandcastle at the sea.", "The children are asleep in their beds.", "contradiction"),
    ("Two children build a sandcastle at the sea.", "The children are brothers.", "neutral"),
    ("The shop closes at six on Sundays.", "On Sundays the shop is closed at seven.", "entailment"),
    ("The shop closes at six on Sundays.", "The shop never opens on Sundays.", "contradiction"),
    ("The shop closes at six on Sundays.", "The shop sells bread.", "neutral"),
    ("She finished the race before anyone else.", "She won the race.", "entailment"),
    ("She finished the race before anyone else.", "She came last.", "contradiction"),
    ("She finished the race before anyone else.", "She had trained for a year.", "neutral"),
]
_PHRASES = ("This text is about {}.", "A few words on {}.", "What I know about {}.", "{}, and why it matters.")


def make(adapter: Adapter) -> pandas.DataFrame:
    """Return at most ROWS rows of text for the adapter, with the column `label` if its labels mean something in them.

    Reviews, news and pairs are labelled for an adapter with those classes; other classes are named in the text.
    """
    if adapter.takes_pairs:
        first, second = adapter.results.dataset.text_columns
        frame = pandas.DataFrame(_PAIRS, columns=[first, second, "label"])
        return _with_known_labels(frame, adapter)
    for rows in (_REVIEWS, _NEWS):
        frame = _with_known_labels(pandas.DataFrame(rows, columns=["text", "label"]), adapter)
        if "label" in frame:
            return frame
    if adapter.task == tasks.REGRESSION:
        return pandas.DataFrame(_REVIEWS, columns=["text", "label"])[["text"]]
    return _named_in_text(adapter)


def _with_known_labels(frame: pandas.DataFrame, adapter: Adapter) -> pandas.DataFrame:
    """Return the frame with its labels as the adapter spells them; without them if it does not have them all."""
    if adapter.task == tasks.SINGLE_LABEL:
        meanings = match_labels(frame["label"], adapter.labels)
        if meanings.keys() == set(frame["label"]):
            return frame.assign(label=frame["label"].map(meanings))
    return frame.drop(columns="label")


def _named_in_text(adapter: Adapter) -> pandas.DataFrame:
    rows = []
    for number in range(ROWS):
        labels = [adapter.labels[number % len(adapter.labels)]]
        if adapter.task == tasks.MULTI_LABEL and number % 2:
            labels.append(adapter.labels[(number + 1) % len(adapter.labels)])
        phrase = _PHRASES[number // len(adapter.labels) % len(_PHRASES)]
        label = tasks.SEPARATOR.join(dict.fromkeys(labels))
        rows.append((phrase.format(" and ".join(labels)), label))
    return pandas.DataFrame(rows, columns=["text", "label"])


def render(frame: pandas.DataFrame) -> str:
    """Return the first rows of an example file."""
    columns = [_column(name) for name in frame.columns]
    table = fragments.table(frame.head(_ROWS_SHOWN).to_dict("records"), columns)
    labels = " with labels" if "label" in frame else ""
    return f"<h3>No file at hand? An example of {len(frame)} texts{labels}</h3>{table}"


def _column(name: str) -> Column:
    def text(row: dict) -> str:
        return html.escape(row[name].replace(tasks.SEPARATOR, ", "))

    return Column(name, text, text, number=False, less_first=True)
