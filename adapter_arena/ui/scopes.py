"""The choice of adapters in Compare: those of one data set, all of them, or a single one."""

from collections import Counter

from adapter_arena.serve.entries import Entry
from adapter_arena.ui.shared import labelled

ALL = "all"
"""The scope of all adapters."""
_DATASET = "data:"
"""How the scope of a data set begins; no adapter's name contains a colon."""


def of_dataset(dataset: str) -> str:
    """Return the scope of a data set's adapters."""
    return f"{_DATASET}{dataset}"


def choices(entries: list[Entry]) -> list[tuple[str, str]]:
    """Return the label and the value of each scope: the data sets with several adapters, all, and each adapter."""
    counts = Counter(entry.dataset for entry in entries if entry.dataset)
    found = [(f"{dataset}: {n} adapters", of_dataset(dataset)) for dataset, n in counts.most_common() if n > 1]
    if len(entries) > 1:
        found.append((f"All {len(entries)} adapters", ALL))
    return found + labelled(entries)


def default(entries: list[Entry]) -> str | None:
    """Return the scope of the data set with the most adapters, else all adapters or the only one; None without adapters."""
    values = [value for _, value in choices(entries)]
    return values[0] if values else None


def chosen(entries: list[Entry], scope: str | None) -> list[Entry]:
    """Return the adapters of a scope, the best first; those of the default scope if there is no such scope."""
    found = _members(entries, scope) or _members(entries, default(entries))
    return sorted(found, key=lambda entry: (entry.headline is None, -(entry.headline or 0.0)))


def is_single(scope: str | None) -> bool:
    """Return whether the scope is one adapter that the visitor has chosen."""
    return scope is not None and scope != ALL and not scope.startswith(_DATASET)


def _members(entries: list[Entry], scope: str | None) -> list[Entry]:
    if scope == ALL:
        return entries
    return [entry for entry in entries if scope in (entry.name, entry.dataset and of_dataset(entry.dataset))]
