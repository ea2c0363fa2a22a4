"""Which differences between adapters may be chance: a matrix of paired tests, and one sentence that sums it up."""

import dataclasses
import html
from dataclasses import dataclass

from adapter_arena import stats
from adapter_arena.serve.entries import Entry
from adapter_arena.stats import Difference
from adapter_arena.ui import measures, palette

_STRONGEST_POINTS = 5.0
"""Difference in points from which the colour is strongest."""
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_KEY = (
    '<p class="key"><i class="cell better"></i> row is better <i class="cell worse"></i> row is worse '
    '<i class="cell chance"></i> may be chance</p>'
)


@dataclass(frozen=True)
class Matrix:
    """The paired tests between adapters that were measured on the same `n` texts of a data set, the best first."""

    dataset: str
    n: int
    entries: list[Entry]
    differences: dict[tuple[str, str], Difference]
    """By the names of both adapters, the better one first."""


def render(entries: list[Entry]) -> str:
    """Return the matrix of each set of test texts that several adapters share, each with its sentence."""
    labels = measures.names(entries)
    found = matrices(entries)
    content = ""
    for matrix in found:
        title = f"Differences on the same {matrix.n:,} texts of {matrix.dataset}"
        content += f"<h3>{html.escape(title)}</h3><p>{html.escape(sentence(matrix, labels))}</p>"
        content += _table(matrix, labels)
    if found:
        content += _KEY
    return content


def matrices(entries: list[Entry]) -> list[Matrix]:
    """Return the tests by set of test texts, that of the most adapters first. p is corrected for all pairs together."""
    found = stats.differences({entry.name: entry.results for entry in entries if entry.results})
    by_name = {entry.name: entry for entry in entries}
    groups: dict[str, list[Difference]] = {}
    for difference in found:
        test = by_name[difference.first].results.evaluation.test_sha256
        groups.setdefault(test, []).append(difference)
    made = [_matrix(group, by_name) for group in groups.values()]
    return sorted(made, key=lambda matrix: -len(matrix.entries))


def _matrix(group: list[Difference], by_name: dict[str, Entry]) -> Matrix:
    compared = {name for difference in group for name in (difference.first, difference.second)}
    best_first = sorted((by_name[name] for name in compared), key=lambda entry: -entry.headline)
    place = {entry.name: number for number, entry in enumerate(best_first)}
    ordered = {}
    for difference in group:
        first, second = sorted((difference.first, difference.second), key=place.__getitem__)
        ordered[first, second] = dataclasses.replace(
            difference, first=first, second=second, points=abs(difference.points)
        )
    return Matrix(best_first[0].dataset or "", group[0].n, best_first, ordered)


def sentence(matrix: Matrix, labels: dict[str, str]) -> str:
    """Return which adapters the best one surpasses, and from which it and others cannot be told apart."""
    best, *others = (entry.name for entry in matrix.entries)
    equal = [name for name in others if not matrix.differences[best, name].significant]
    surpassed = len(others) - len(equal)
    parts = []
    if not equal:
        parts.append(f"{labels[best]} is better than {_all(len(others), labels[others[0]])}")
    elif surpassed:
        parts.append(f"{labels[best]} is better than {_word(surpassed)} of the {_word(len(others))} others")
    if len(equal) == 1:
        parts.append(f"{_listed([best, *equal], labels)} cannot be told apart")
    elif equal:
        parts.append(f"{labels[best]} cannot be told apart from {_listed(equal, labels)}")
    pairs = [pair for pair, difference in matrix.differences.items() if not difference.significant and pair[0] != best]
    if pairs:
        subject = _listed(pairs[0], labels) if len(pairs) == 1 else f"{_word(len(pairs))} other pairs"
        parts.append(f"nor can {subject}" if equal else f"{subject} cannot be told apart")
    return f"{'; '.join(parts)}."


def _all(number: int, only: str) -> str:
    return only if number == 1 else f"all {_word(number)} others"


def _word(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else f"{number:,}"


def _listed(names: list[str] | tuple[str, ...], labels: dict[str, str]) -> str:
    """Return `A`, `A and B`, or `A, B and C`; more than three are counted."""
    if len(names) > 3:
        return f"{_word(len(names))} others"
    *first, last = (labels[name] for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _table(matrix: Matrix, labels: dict[str, str]) -> str:
    head = '<th scope="col"><span class="unseen">better or worse than</span></th>'
    for entry in matrix.entries:
        head += f'<th scope="col"><span>{html.escape(labels[entry.name])}</span></th>'
    body = ""
    for row in matrix.entries:
        cells = "".join(_cell(matrix, row.name, column.name, labels) for column in matrix.entries)
        name = palette.dot(row.method) + html.escape(labels[row.name])
        body += f'<tr><th scope="row">{name}</th>{cells}</tr>'
    table = f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Paired tests">{table}</div>'


def _cell(matrix: Matrix, row: str, column: str, labels: dict[str, str]) -> str:
    if row == column:
        return "<td></td>"
    is_better = (row, column) in matrix.differences
    difference = matrix.differences[(row, column) if is_better else (column, row)]
    points = difference.points if is_better else -difference.points
    css_class = "better" if is_better else "worse"
    verdict = ""
    if not difference.significant:
        css_class = "chance"
        verdict = ", may be chance"
    strength = min(1.0, difference.points / _STRONGEST_POINTS)
    unit = _unit(difference)
    title = f"{labels[row]} – {labels[column]}: {_signed(points, 2)} {unit}, p {_p_value(difference.p)}{verdict}"
    return (
        f'<td class="cell {css_class}" style="--strength:{strength:.2f}" title="{html.escape(title)}">'
        f'{_signed(points, 1)}<span class="unseen"> {unit}, p {_p_value(difference.p)}{verdict}</span></td>'
    )


def _unit(difference: Difference) -> str:
    """Return what the numbers of a matrix count: points of accuracy, or hundredths of another score."""
    return "points" if difference.unit == "percentage points" else f"{difference.unit} of {difference.metric}"


def _signed(points: float, digits: int) -> str:
    """Return a number with its sign; a hyphen would be narrower than the plus."""
    return f"{points:+.{digits}f}".replace("-", "−")


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"
