"""Clean the rows of a dataset and divide them into train, validation and test.

The functions work on one frame per split with columns `label`, `key` (a hash of the text) and `row` (its position in
the split as read), so that the texts need not be in memory.
"""

import collections

import pandas
from sklearn.model_selection import train_test_split

from adapter_arena import tasks
from adapter_arena.data.classes import Frames, Note
from adapter_arena.errors import DataError
from adapter_arena.results import DatasetFacts

_SHARES = {"test": 0.2, "validation": 0.1}
"""Share of the training rows that a missing split takes, in this order."""
_LEAST_OF_STRATUM = 10
"""Rows that a label needs, as the rarest of its rows, to be divided in proportion."""
_OTHER = -1
"""The group of rows without a label, or whose rarest label has too few rows."""


def clean(frames: Frames, facts: DatasetFacts) -> tuple[Frames, list[Note]]:
    """Return the frames with the rows to use, and notes for the user; the rows left out are counted in `facts`.

    These are rows without a text (column `has_text` is false) or without a label, all copies of a text whose labels
    contradict each other, the further copies of any other text, and leaks: rows of train or validation whose text is
    also in a later split. A validation or test split without a single row left, for example with secret labels, is
    dropped.
    """
    cleaned = {}
    notes = []
    facts.unlabelled_removed = 0
    facts.contradictions_removed = 0
    for name, frame in frames.items():
        with_text = frame[frame["has_text"]].drop(columns="has_text")
        labelled = with_text[with_text["label"] != ""]
        contradictory = _contradictory_keys(labelled)
        is_contradictory = labelled["key"].isin(contradictory)
        consistent = labelled[~is_contradictory]
        distinct = consistent.drop_duplicates("key")
        facts.empty_removed += len(frame) - len(with_text)
        facts.unlabelled_removed += len(with_text) - len(labelled)
        facts.contradictions_removed += int(is_contradictory.sum())
        facts.duplicates_removed += len(consistent) - len(distinct)
        if len(contradictory):
            notes.append(_contradiction_note(name, labelled, contradictory))
        if name == "train" or not distinct.empty:
            cleaned[name] = distinct
    _remove_leaks(cleaned, facts)
    return cleaned, notes


def _remove_leaks(frames: Frames, facts: DatasetFacts) -> None:
    for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if earlier in frames and later in frames:
            is_leak = frames[earlier]["key"].isin(frames[later]["key"])
            facts.leaked_removed += int(is_leak.sum())
            frames[earlier] = frames[earlier][~is_leak]


def _contradictory_keys(frame: pandas.DataFrame) -> pandas.Series:
    """Return the keys of texts that have more than one label.

    No copy of such a text is used: nobody knows which label is right, and one row at most is lost for each text.
    """
    pairs = frame[["key", "label"]].drop_duplicates()
    return pairs["key"][pairs["key"].duplicated()].drop_duplicates()


def _contradiction_note(split: str, frame: pandas.DataFrame, contradictory: pandas.Series) -> Note:
    pair = frame[frame["key"] == contradictory.iloc[0]].drop_duplicates("label").head(2)
    places = [f"row {row + 1:,} {label!r}" for row, label in zip(pair["row"], pair["label"])]
    n = f"{len(contradictory):,} texts" if len(contradictory) > 1 else "1 text"
    return Note("contradicted", f"{n} of {split} with several labels left out, for example {' and '.join(places)}")


def carve_missing(frames: Frames, labels: list[str], seed: int, dataset: str, task: str = tasks.SINGLE_LABEL) -> Frames:
    """Return the frames of all three splits, in the order of their rows; missing ones are carved from train.

    Test takes a fifth and then validation a tenth of the training rows, with classes in proportion; of several labels
    the rarest of a row counts. Raises DataError.
    """
    carved = dict(frames)
    for name, share in _SHARES.items():
        if name in frames:
            continue
        train = carved["train"]
        rows = int(share * len(train))
        strata = _strata(train, task)
        sizes = strata.value_counts()
        if sizes.min() < 2 or rows < len(sizes):
            rarest = f", {sizes.min()} of class {labels[sizes.idxmin()]!r}" if task == tasks.SINGLE_LABEL else ""
            raise DataError(
                f"{dataset} has too few rows to carve a {name} split: {len(train)} rows{rarest}; add rows or a {name} file."
            )
        carved["train"], carved[name] = train_test_split(train, test_size=rows, random_state=seed, stratify=strata)
    return {name: carved[name].sort_values("row") for name in ("train", "validation", "test")}


def _strata(train: pandas.DataFrame, task: str) -> pandas.Series:
    """Return the group of each row; every part that is carved has the groups in the same proportion."""
    if task == tasks.SINGLE_LABEL:
        return train["label"]
    if task == tasks.REGRESSION:
        return pandas.Series(0, index=train.index)
    counts = collections.Counter(index for indices in train["label"] for index in indices)
    rarest = train["label"].map(lambda indices: min(indices, key=counts.__getitem__, default=_OTHER))
    sizes = rarest.map(rarest.value_counts())
    strata = rarest.where(sizes >= _LEAST_OF_STRATUM, _OTHER)
    if (strata == _OTHER).sum() == 1:  # one row cannot be divided
        strata = strata.replace(_OTHER, strata.mode()[0])
    return strata


def draw(frame: pandas.DataFrame, n: int | None, seed: int, task: str) -> pandas.DataFrame:
    """Return `n` rows in their order, or all for None: balanced over classes, or at random if rows have no one class."""
    if task == tasks.SINGLE_LABEL or n is None or n >= len(frame):
        return balanced(frame, n, seed)
    return frame.sample(n, random_state=seed).sort_index().reset_index(drop=True)


def balanced(frame: pandas.DataFrame, n: int | None, seed: int) -> pandas.DataFrame:
    """Return `n` rows in their order, spread over the classes as evenly as possible; all rows for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    shuffled = frame.sample(frac=1, random_state=seed)
    rank_in_class = shuffled.groupby("label").cumcount()
    chosen = rank_in_class.sort_values(kind="stable").index[:n]  # the first row of each class, then the second, …
    return frame.loc[chosen.sort_values()].reset_index(drop=True)
