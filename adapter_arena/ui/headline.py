"""The sentence above the answers: what the measurements of the adapters of one data set say."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from adapter_arena import stats, tasks
from adapter_arena.results import Results, SimpleBaseline, correct_rows, score_in, score_of, unpack_rows
from adapter_arena.serve.entries import Entry

_MAX_NAMES = 4
"""Number of adapters that a sentence names one by one."""
_CHEAPER = 0.5
"""An adapter counts as cheaper if it trains at most this share of the weights."""
_SIGNIFICANT = 0.05
_FRACTIONS = {
    2: "half",
    3: "a third",
    4: "a quarter",
    5: "a fifth",
    6: "a sixth",
    7: "a seventh",
    8: "an eighth",
    9: "a ninth",
    10: "a tenth",
}
_NOUNS = {
    "review": "reviews",
    "sentence": "sentences",
    "tweet": "tweets",
    "comment": "comments",
    "question": "questions",
}
"""What the texts of a column with that name are called."""
_BASELINES = {"tfidf": "TF-IDF", "probe": "the frozen base", "majority": "the majority class"}
"""The baselines in the order in which one is chosen for the sentence."""


@dataclass(frozen=True)
class _Measured:
    """An adapter with its results; `title` is how the sentence names it."""

    name: str
    title: str
    found: Results

    @property
    def score(self) -> float:
        """The score that ranks adapters of its task."""
        value, _ = score_of(self.found, tasks.of(self.found).objective)
        return value

    @property
    def interval(self) -> list[float]:
        """The 95 % interval of the score."""
        _, interval = score_of(self.found, tasks.of(self.found).objective)
        return interval

    @property
    def weights(self) -> int:
        """Number of weights that were trained."""
        return self.found.training.trainable_params


def of_entries(entries: list[Entry]) -> str:
    """Return the sentence about the data set and task with the most measured adapters; "" if none is measured."""
    measured = [entry for entry in entries if entry.results]
    groups = Counter((entry.dataset, entry.task) for entry in measured)
    if not groups:
        return ""
    largest, _ = groups.most_common(1)[0]
    members = [entry for entry in measured if (entry.dataset, entry.task) == largest]
    counts = Counter(entry.title for entry in members)
    titles = {entry.name: entry.title if counts[entry.title] == 1 else entry.name for entry in members}
    return sentence({entry.name: entry.results for entry in members}, titles)


def sentence(found: dict[str, Results], titles: dict[str, str]) -> str:
    """Return one sentence about adapters of one data set and task, by name; `titles` are their names in it.

    Only adapters that were tested on the same rows are said to be equal or different, by a paired test that is
    Holm-corrected over all of them.
    """
    ranked = _largest_group([_Measured(name, titles[name], results) for name, results in found.items()])
    if not ranked:
        return ""
    if len(ranked) == 1:
        return _ended(_of_one(ranked[0]))
    tests = {frozenset((test.first, test.second)): test for test in stats.differences(found)}
    best = ranked[0]
    tested = [adapter for adapter in ranked[1:] if frozenset((best.name, adapter.name)) in tests]
    if not tested:
        return _ended(_without_tests(ranked))
    equals = _equal_to_best(best, tested, tests)
    clauses = [_first_clause(equals, tested, tests)]
    cost = _cost(equals, tested, tests) or _reference(best, _inside(best.title))
    if cost:
        clauses.append(cost)
    return _ended("; ".join(clauses))


def _largest_group(measured: list[_Measured]) -> list[_Measured]:
    """Return the adapters that share their test rows with the most others, the best first; all if none share them."""
    groups = defaultdict(list)
    for adapter in measured:
        groups[adapter.found.evaluation.test_sha256 or adapter.name].append(adapter)
    largest = max(groups.values(), key=len, default=[])
    members = largest if len(largest) > 1 else measured
    return sorted(members, key=lambda adapter: (-adapter.score, adapter.weights))


def _equal_to_best(best: _Measured, tested: list[_Measured], tests: dict) -> list[_Measured]:
    """Return the best adapter, and those of which no two can be told apart."""
    equals = [best]
    for adapter in tested:
        pairs = [tests.get(frozenset((adapter.name, other.name))) for other in equals]
        if all(pair is not None and not pair.significant for pair in pairs):
            equals.append(adapter)
    return equals


def _first_clause(equals: list[_Measured], tested: list[_Measured], tests: dict) -> str:
    best = equals[0]
    if len(equals) > 1:
        return f"{_join([adapter.title for adapter in equals])} cannot be told apart on {_rows(best.found)}"
    second = tested[0]
    points = _points(tests, best, second)
    if len(tested) == 1:
        return f"{best.title} is {points} ahead of {_inside(second.title)} on {_rows(best.found)}"
    others = f"of {len(tested) + 1} tested on the same {_rows(best.found)}"
    rank = "is the most accurate" if best.found.task == tasks.SINGLE_LABEL else "scores highest"
    return f"{best.title} {rank} {others}, {points} ahead of {_inside(second.title)}"


def _cost(equals: list[_Measured], tested: list[_Measured], tests: dict) -> str:
    """Return what the best of the adapters that train far fewer weights costs in accuracy; "" if there is none."""
    best = equals[0]
    for adapter in tested:
        if adapter.weights > _CHEAPER * best.weights:
            continue
        share = f"trains {_share(adapter.weights / best.weights)} of {_possessive(best, equals)} weights"
        if adapter in equals:
            return f"{_inside(adapter.title)} {share}"
        if tests[frozenset((best.name, adapter.name))].significant:
            return f"{_inside(adapter.title)} costs {_points(tests, best, adapter)} and {share}"
    return ""


def _possessive(best: _Measured, equals: list[_Measured]) -> str:
    return "its" if len(equals) == 1 else f"{_inside(best.title)}'s"


def _points(tests: dict, best: _Measured, other: _Measured) -> str:
    """Return the difference between two adapters in words: `2.3 points`, or `0.021 of Spearman correlation`."""
    difference = tests[frozenset((best.name, other.name))]
    if difference.unit == "percentage points":
        return _written(abs(difference.points))
    return f"{abs(difference.points) / 100:.3f} of {difference.metric}"


def _written(points: float) -> str:
    """Return the number of percentage points in words that agree with it."""
    number = f"{points:.1f}" if points >= 0.05 else f"{points:.2f}"
    return f"{number} point" if number == "1.0" else f"{number} points"


def _without_tests(ranked: list[_Measured]) -> str:
    """Return the clause about the best adapter if it shares test rows with no other one, or the task has no tests."""
    best, second = ranked[:2]
    scored = f"{best.title} scores highest, {_score(best)}"
    if _same_rows(best, second) and best.interval[0] > second.interval[1]:
        return f"{scored}, and its 95 % interval is above that of {_inside(second.title)}"
    if _same_rows(best, second):
        return f"{scored}, but the 95 % interval of {_inside(second.title)} overlaps"
    return f"{scored}, but {_inside(second.title)} was not tested on the same texts"


def _same_rows(first: _Measured, second: _Measured) -> bool:
    digest = first.found.evaluation.test_sha256
    return digest is not None and digest == second.found.evaluation.test_sha256


def _of_one(adapter: _Measured) -> str:
    comparison = _reference(adapter, "it")
    scored = f"{adapter.title} scores {_score(adapter)}"
    return f"{scored}; {comparison}" if comparison else scored


def _reference(adapter: _Measured, name: str) -> str:
    """Return what is reached without fine-tuning, compared with an adapter that is called `name`; "" if unknown."""
    if adapter.found.task == tasks.SINGLE_LABEL:
        return _baseline(adapter, name)
    return _baseline_score(adapter) or _constant(adapter)


def _baseline_score(adapter: _Measured) -> str:
    """Return what the first of the measured baselines scores; "" if there is none."""
    metric = tasks.of(adapter.found).objective
    for key, title in _BASELINES.items():
        baseline = adapter.found.evaluation.baselines.get(key)
        value = score_in(baseline, metric)[0] if baseline else None
        if value is not None:
            return f"{title} scores {metric.write(value)}"
    return ""


def _baseline(adapter: _Measured, name: str) -> str:
    """Return how far the first of the measured baselines is from an adapter, called `name`; "" if there is none."""
    evaluation = adapter.found.evaluation
    for key, title in _BASELINES.items():
        baseline = evaluation.baselines.get(key)
        if baseline is None:
            continue
        if not _differs(adapter.found, baseline):
            return f"{title} cannot be told apart from {name}"
        points = 100 * (evaluation.accuracy - baseline.accuracy)
        return f"{title} is {_written(abs(points))} {'below' if points > 0 else 'above'} {name}"
    return ""


def _differs(found: Results, baseline: SimpleBaseline) -> bool:
    """Return whether an adapter and a baseline differ significantly, in a paired test or by their intervals."""
    evaluation = found.evaluation
    rows = correct_rows(evaluation)
    if rows is not None:
        return stats.mcnemar(rows, unpack_rows(baseline.correct, evaluation.n)) < _SIGNIFICANT
    low, high = evaluation.accuracy_ci95
    return low > baseline.accuracy_ci95[1] or high < baseline.accuracy_ci95[0]


def _constant(adapter: _Measured) -> str:
    """Return what always giving one answer scores, for a task other than single-label; "" if that has no score."""
    metric = tasks.of(adapter.found).objective
    constant = adapter.found.evaluation.constant
    score = constant.scores.get(metric.name) if constant else None
    if score is None:
        return ""
    return f"the {tasks.of(adapter.found).constant} scores {metric.write(score.value)}"


def _score(adapter: _Measured) -> str:
    """Return the score with the test rows: `91.4 % on 12,454 texts of imdb`, with the metric's name if it is not accuracy."""
    found = adapter.found
    metric = tasks.of(found).objective
    value = f"{100 * adapter.score:.1f} %" if metric.is_share else f"{metric.write(adapter.score)} ({metric.title})"
    return f"{value} on {_rows(found)}"


def _rows(found: Results) -> str:
    """Return the number of test texts and the name of the data set."""
    columns = found.dataset.text_columns or []
    noun = "pairs" if found.dataset.has_pairs else "texts"
    if len(columns) == 1:
        noun = _NOUNS.get(columns[0].lower(), noun)
    return f"{found.evaluation.n:,} {noun} of {found.dataset.id}"


def _share(share: float) -> str:
    """Return a share in words: `a fifth`, or `0.7 %`."""
    for divisor, words in _FRACTIONS.items():
        if abs(share * divisor - 1) <= 0.05:
            return words
    return f"{100 * share:.2g} %"


def _join(titles: list[str]) -> str:
    """Return titles as a list in prose; of many, only the first ones are named."""
    named = [titles[0], *map(_inside, titles[1:])]
    if len(named) > _MAX_NAMES:
        hidden = len(named) - _MAX_NAMES + 1
        named = [*named[: _MAX_NAMES - 1], f"{hidden} others"]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _inside(title: str) -> str:
    """Return a title as it is written inside a sentence: `full fine-tuning`, but `LoRA`."""
    first_word = title.split(" ")[0]
    return title[0].lower() + title[1:] if first_word[1:].islower() and first_word[0].isupper() else title


def _ended(text: str) -> str:
    return f"{text}."
