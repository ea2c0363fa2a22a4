"""The leaderboard's charts: quality against cost, and curves that were recorded in training or evaluation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gradio.components.plot import PlotData

from adapter_arena import tasks
from adapter_arena.adapters.plots import steps_per_epoch
from adapter_arena.errors import shortened_list
from adapter_arena.results import Epoch, Results
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import charts, measures
from adapter_arena.ui.charts import Axis, CurvePoint, Point
from adapter_arena.ui.forest import link
from adapter_arena.ui.measures import Measure

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A quantity that was recorded at several points. Both functions return [] for results without it."""

    title: str
    x: Axis
    y: Axis
    points: Callable[[Results], Points]
    after_epochs: Callable[[Results], Points] = lambda found: []
    """Used if there are no `points`: results of earlier versions have only one value for each epoch."""


def _scaled(found: Results, score: float) -> float:
    """Return a score by which the task ranks models, in percent if it is a share."""
    return 100 * score if tasks.of(found).objective.is_share else score


def _score_of_epoch(found: Results, row: Epoch) -> float | None:
    name = tasks.of(found).objective.name
    score = row.validation_accuracy if found.task == tasks.SINGLE_LABEL else (row.validation_scores or {}).get(name)
    return None if score is None else _scaled(found, score)


def _by_step(found: Results, read: Callable[[Epoch], float | None]) -> Points:
    """Return a value of each epoch at the epoch's last step; [] if they are fewer than two."""
    points = []
    for row in found.training.epochs:
        value = read(row)
        if value is not None:
            points.append((row.epoch * steps_per_epoch(found), value))
    return points if len(points) > 1 else []


_STEP = Axis("Step", ",d")
CURVES = {
    "score": Curve(
        "Validation score",
        _STEP,
        Axis("Validation score", ".3~f"),
        lambda found: [(step, _scaled(found, score)) for step, _, score in found.training.validation_curve],
        lambda found: _by_step(found, lambda row: _score_of_epoch(found, row)),
    ),
    "validation": Curve(
        "Validation loss",
        _STEP,
        Axis("Validation loss", ".3f"),
        lambda found: [(step, loss) for step, loss, _ in found.training.validation_curve],
        lambda found: _by_step(found, lambda row: row.validation_loss),
    ),
    "training": Curve(
        "Training loss",
        _STEP,
        Axis("Training loss", ".2f"),
        lambda found: found.training.losses,
        lambda found: _by_step(found, lambda row: row.train_loss),
    ),
    "abstaining": Curve(
        "Accuracy when abstaining",
        Axis("Texts answered, %", ".0f"),
        Axis("Accuracy of the answers, %", ".1f", more_is_better=True),
        lambda found: [(100 * point.share, 100 * point.accuracy) for point in found.evaluation.abstention],
    ),
}


def curves(entries: list[Entry], curve: Curve) -> tuple[PlotData, str]:
    """Return a line for each adapter, and a sentence that names those without the curve, or with a coarser one."""
    points = []
    coarse = []
    missing = []
    for row in measures.best_first(measures.of_adapters(entries)):
        found = row.entry.results
        recorded = curve.points(found) if found else []
        if found and not recorded:
            recorded = curve.after_epochs(found)
            if recorded:
                coarse.append(row.title)
        if not recorded:
            missing.append(row.title)
        points += [CurvePoint(row.title, row.method, x, y) for x, y in recorded]
    sentences = []
    if coarse:
        sentences.append(f"Once an epoch only: {shortened_list(coarse)}.")
    if missing and points:
        sentences.append(f"Not recorded: {shortened_list(missing)}.")
    return charts.lines(points, curve.x, _y_axis(entries, curve)), " ".join(sentences)


def _y_axis(entries: list[Entry], curve: Curve) -> Axis:
    """Return the axis of a curve; that of the validation score has the score's name if all adapters have one task."""
    scores = {measures.objective(entry.task).title for entry in entries}
    if curve is not CURVES["score"] or len(scores) != 1:
        return curve.y
    return replace(curve.y, title=f"Validation: {scores.pop()}")


def scatter(entries: list[Entry], x: Measure, y: Measure) -> PlotData:
    """Return a mark for each adapter with both measures, which opens the adapter, and the Pareto front."""
    points = []
    for row in measures.best_first(measures.of_adapters(entries)):
        x_value = x.value(row)
        y_value = y.value(row)
        if not _fits(x_value, x.axis) or not _fits(y_value, y.axis):
            continue
        low, high = y.interval(row) or (None, None)
        interval = y.write_interval(row)
        point = Point(row.title, row.method, x_value, y_value, low, high, interval, link(row.entry.name))
        points.append(point)
    return charts.scatter(points, x.axis, y.axis)


def _fits(value: float | None, axis: Axis) -> bool:
    """Whether a value can be drawn: a logarithmic axis has no zero."""
    return value is not None and (value > 0 or not axis.log)
