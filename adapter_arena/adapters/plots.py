"""The pictures of model cards and comparisons, made from results alone."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from adapter_arena import tasks
from adapter_arena.adapters import fonts
from adapter_arena.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#292524"
GREY = "#78716c"
PALE = "#e7e5e4"
ACCENT = "#0f766e"
_INTERVAL = "#99c5c0"
_WHITE = "#f5f5f4"
_STYLE = {
    "font.family": fonts.DEFAULT,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a label may contain dollar signs
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_DASHED = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
CONFUSION_MATRIX = "confusion_matrix.png"
LEARNING_CURVE = "learning_curve.png"
RELIABILITY = "reliability.png"
FILES = (CONFUSION_MATRIX, LEARNING_CURVE, RELIABILITY)
"""All pictures of a card."""
_MAX_NAMES = 30
"""Number of labels up to which the confusion matrix shows their names."""
_MAX_NUMBERS = 12
"""Number of labels up to which the confusion matrix shows the counts."""
_MAX_NAME = 18
"""Characters of a label's name that fit into the confusion matrix."""


def names(found: Results) -> list[str]:
    """Return the pictures that can be drawn from these results."""
    training = found.training
    pictures = [CONFUSION_MATRIX] if found.evaluation.confusion_matrix else []
    if len(training.epochs) > 1 or training.losses or training.validation_curve:
        pictures.append(LEARNING_CURVE)
    if found.evaluation.reliability:
        pictures.append(RELIABILITY)
    return pictures


def write(found: Results, folder: Path) -> None:
    """Write the card's pictures into the adapter folder, 600 px wide. Equal results give equal bytes."""
    drawings = {CONFUSION_MATRIX: _confusion_matrix, LEARNING_CURVE: _learning_curve, RELIABILITY: _reliability}
    for name in names(found):
        draw = drawings[name]
        _save(folder / name, 6, lambda figure, draw=draw: draw(found, figure))


def _save(path: Path, width: float, draw: Callable[["Figure"], None]) -> None:
    """Write a PNG of a figure, `width` inches wide at 100 dpi, on which `draw` has drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):  # not the user's own style
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, 4), layout="constrained")
        draw(figure)
        figure.savefig(path, format="png", dpi=100, metadata={"Software": None})


def _values(rows: Sequence, field: str) -> numpy.ndarray:
    """Return one field of all rows, shape (rows,), or (rows, 2) for an interval."""
    return numpy.array([getattr(row, field) for row in rows])


# ---------------------------------------------------------------- a card


def _confusion_matrix(found: Results, figure: "Figure") -> None:
    """Draw the share of each true class, so that rare classes are as readable as common ones, and counts as text."""
    from matplotlib.colors import LinearSegmentedColormap

    count_of_labels = len(found.labels)
    counts = numpy.array(found.evaluation.confusion_matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / numpy.maximum(totals, 1)
    figure.set_size_inches(6, min(6.0, 3 + 0.5 * count_of_labels))
    axes = figure.subplots()
    palette = LinearSegmentedColormap.from_list("shares", [_WHITE, ACCENT])
    axes.imshow(shares, cmap=palette, vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    label_names = _shown_names(found)
    families = fonts.families_for(label_names)
    if families is None:
        label_names = [str(number) for number in range(count_of_labels)]
    ticks = range(len(label_names))
    axes.set_xticks(ticks, label_names, rotation=0 if count_of_labels <= 5 else 90, fontfamily=families)
    axes.set_yticks(ticks, label_names, fontfamily=families)
    if count_of_labels <= _MAX_NUMBERS:
        _write_counts(axes, counts, shares)


def _write_counts(axes: "Axes", counts: numpy.ndarray, shares: numpy.ndarray) -> None:
    """Write the count, and the share if there is room for it, into each cell of a confusion matrix."""
    for (y, x), count in numpy.ndenumerate(counts):
        share = shares[y, x]
        text = f"{count:,}"
        if len(counts) <= 6:
            text += f"\n{share:.1%}"
        axes.text(x, y, text, ha="center", va="center", color="white" if share > 0.5 else INK)


def _shown_names(found: Results) -> list[str]:
    """Return the names in the confusion matrix, in the order of the labels; none if there are too many."""
    if len(found.labels) > _MAX_NAMES:
        return []
    return [_shorten(label) for label in found.labels]


def may_number_classes(found: Results) -> bool:
    """Return whether the confusion matrix may show ids for names, because its usual font cannot draw these."""
    return not fonts.default_draws(_shown_names(found))


def _shorten(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _MAX_NAME else line[: _MAX_NAME - 1] + "…"


def _learning_curve(found: Results, figure: "Figure") -> None:
    """Draw the loss and, if they were recorded, validation score, learning rate and memory over epochs."""
    training = found.training
    title, scores = _validation_scores(found)
    step_curves = {}
    if training.learning_rates:
        step_curves["learning rate"] = training.learning_rates
    if training.memory_mb:
        step_curves["memory in use, MB"] = training.memory_mb
    panels = _panels(figure, 1 + bool(scores) + len(step_curves))
    _draw_losses(found, panels[0])
    if scores:
        _plot_steps(found, panels[1], scores, color=ACCENT, marker="o")
        panels[1].set(title=title)
    for axes, (title, points) in zip(panels[len(panels) - len(step_curves) :], step_curves.items()):
        _plot_steps(found, axes, points)
        axes.set(title=title, ylim=(0, None))
    for axes in panels:
        axes.set(xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _light_grid(axes)


def _validation_scores(found: Results) -> tuple[str, list[list[float]]]:
    """Return the title and the points (step, value) of the metric that ranks the task's models.

    They are those of the learning curve, or in results of earlier versions the values after each epoch if there are
    several.
    """
    metric = tasks.of(found).objective
    factor = 100 if metric.is_share else 1
    title = f"validation: {metric.title}, %" if metric.is_share else f"validation: {metric.title}"
    training = found.training
    if training.validation_curve:
        return title, [[step, factor * score] for step, _, score in training.validation_curve]
    if len(training.epochs) < 2:
        return title, []
    if found.task == tasks.SINGLE_LABEL:
        scores = [factor * row.validation_accuracy for row in training.epochs]
    else:
        scores = [factor * row.validation_scores[metric.name] for row in training.epochs]
    return title, _at_epochs(found, scores)


def _at_epochs(found: Results, values: list[float]) -> list[list[float]]:
    """Return points (step, value) from the values at the ends of the epochs."""
    steps = steps_per_epoch(found)
    return [[row.epoch * steps, value] for row, value in zip(found.training.epochs, values)]


def _panels(figure: "Figure", count: int) -> list["Axes"]:
    """Return `count` axes in up to two columns."""
    rows = math.ceil(count / 2)
    columns = min(2, count)
    figure.set_size_inches(6, 3 if rows == 1 else 5)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in grid[count:]:
        unused.remove()
    return grid[:count]


def _draw_losses(found: Results, axes: "Axes") -> None:
    training = found.training
    has_several_epochs = len(training.epochs) > 1
    if training.losses:
        _plot_steps(found, axes, training.losses, label="train")
    elif has_several_epochs:
        losses = _at_epochs(found, [row.train_loss for row in training.epochs])
        _plot_steps(found, axes, losses, label="train", marker="o")
    validation = [[step, loss] for step, loss, _ in training.validation_curve]
    if not validation and has_several_epochs:
        validation = _at_epochs(found, [row.validation_loss for row in training.epochs])
    if validation:
        _plot_steps(found, axes, validation, label="validation", color=ACCENT, marker="o")
    axes.set(title="loss")
    axes.set_ylim(bottom=0)
    axes.legend()


def steps_per_epoch(found: Results) -> int:
    """Return the number of training steps of one epoch."""
    return math.ceil(found.dataset.splits["train"] / found.recipe["batch_size"])


def _plot_steps(found: Results, axes: "Axes", points: list[list[float]], color: str = GREY, **look: str) -> None:
    """Plot points of (step, value) over epochs."""
    steps, values = numpy.array(points).T
    axes.plot(steps / steps_per_epoch(found), values, color=color, **look)


def _reliability(found: Results, figure: "Figure") -> None:
    """Draw accuracy over confidence with 95 % intervals; a point's area is its share of the test rows."""
    evaluation = found.evaluation
    bins = evaluation.reliability
    confidences = _values(bins, "confidence")
    low_ends, high_ends = _values(bins, "accuracy_ci95").T
    areas = 12 + 400 * _values(bins, "n") / evaluation.n
    lowest = min(1 / len(found.labels), *confidences)
    axes = figure.subplots()
    axes.plot([lowest, 1], [lowest, 1], label="perfectly calibrated", **_DASHED)
    axes.vlines(confidences, low_ends, high_ends, color=_INTERVAL, linewidth=2)
    label = "this adapter, 95 % interval"
    axes.scatter(confidences, _values(bins, "accuracy"), s=areas, color=ACCENT, zorder=3, label=label)
    title = f"calibration error (ECE) {evaluation.ece:.3f}"
    axes.set(xlabel="confidence", ylabel="accuracy", ylim=(0, 1.03), title=title)
    axes.legend(loc="lower right", markerscale=0.6)
    _light_grid(axes)


def _light_grid(axes: "Axes") -> None:
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


# ---------------------------------------------------------------- a comparison


def write_comparison(
    rows: list, metric: tasks.Metric, untrained: float, found: dict[str, list[Results]], folder: Path
) -> None:
    """Write pareto.png, before_after.png and curves.png of a comparison into `folder`.

    `rows` are of comparison.Row, `untrained` is the metric of the untrained base, `found` holds the runs of each row.
    """
    _save(folder / "pareto.png", 7, lambda figure: _pareto(rows, metric, figure))
    _save(folder / "before_after.png", 7, lambda figure: _before_after(rows, metric, untrained, figure))
    runs = {row.title: found[row.name] for row in rows}
    _save(folder / "curves.png", 7, lambda figure: _curves(runs, metric, figure))


def _pareto(rows: list, metric: tasks.Metric, figure: "Figure") -> None:
    """Draw the metric over trained parameters with intervals over seeds.

    The dashed line joins the methods that no other beats on both.
    """
    axes = figure.subplots()
    for row in rows:
        score = row.scores[metric.name]
        low, high = score.ci95 or score.test_ci95
        value = metric.factor * score.mean
        axes.vlines(row.trainable_params, metric.factor * low, metric.factor * high, color=_INTERVAL, linewidth=2)
        axes.scatter(row.trainable_params, value, color=ACCENT, zorder=3)
        axes.annotate(row.title, (row.trainable_params, value), xytext=(6, 4), textcoords="offset points")
    front = []
    for row in sorted(rows, key=lambda row: (row.trainable_params, -row.scores[metric.name].mean)):
        if not front or row.scores[metric.name].mean > front[-1].scores[metric.name].mean:
            front.append(row)
    axes.plot(_values(front, "trainable_params"), _means(front, metric), **_DASHED)
    axes.set(xscale="log", xlabel="trained parameters", ylabel=metric.column)
    # matplotlib writes powers of ten as mathematics, which `text.parse_math` switches off.
    axes.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
    axes.margins(x=0.15)
    _light_grid(axes)


def _means(rows: list, metric: tasks.Metric) -> numpy.ndarray:
    """Return the mean of a metric over the seeds of each row as it is shown, shape (rows,)."""
    return metric.factor * numpy.array([row.scores[metric.name].mean for row in rows])


def _before_after(rows: list, metric: tasks.Metric, untrained: float, figure: "Figure") -> None:
    """Draw the metric of each method next to that of the untrained base."""
    axes = figure.subplots()
    places = numpy.arange(len(rows))
    before = metric.factor * untrained
    after = _means(rows, metric)
    axes.barh(places + 0.2, before, height=0.35, color=PALE, label="untrained")
    bars = axes.barh(places - 0.2, after, height=0.35, color=ACCENT, label="trained")
    axes.bar_label(bars, fmt="%.1f" if metric.is_share else "%.3f", padding=3)
    axes.set_yticks(places, _values(rows, "title"))
    axes.invert_yaxis()
    lowest = min(0, before, *after)  # a correlation may be negative
    axes.set(xlabel=metric.column, xlim=(1.08 * lowest, 1.08 * metric.factor))
    figure.legend(loc="outside upper right", ncols=2)


def _curves(runs_of: dict[str, list[Results]], metric: tasks.Metric, figure: "Figure") -> None:
    """Draw the validation score that ranks the task's models and the loss by epoch, as means over seeds."""
    score_axes, loss_axes = figure.subplots(1, 2)
    for number, (title, runs) in enumerate(runs_of.items()):
        epochs, losses, scores = _mean_validation(runs).T
        look = {"label": title, "color": f"C{number}", "marker": "o", "markersize": 3}
        score_axes.plot(epochs, metric.factor * scores, **look)
        loss_axes.plot(epochs, losses, **look)
    score_axes.set(title=f"validation {metric.column}", xlabel="epoch")
    loss_axes.set(title="validation loss", xlabel="epoch")
    for axes in (score_axes, loss_axes):
        axes.xaxis.get_major_locator().set_params(integer=True)
        _light_grid(axes)
    handles = score_axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(4, len(runs_of)))


def _mean_validation(runs: list[Results]) -> numpy.ndarray:
    """Return (epoch, validation loss, score that ranks the task's models) as means over runs, shape (points, 3).

    They are of the learning curve if all runs recorded it, else of the ends of the epochs.
    """
    curves = [run.training.validation_curve for run in runs]
    if curves[0] and len({len(curve) for curve in curves}) == 1:
        return numpy.mean(curves, axis=0) / [steps_per_epoch(runs[0]), 1, 1]
    return numpy.mean([_validation_points(run) for run in runs], axis=0)


def _validation_points(found: Results) -> numpy.ndarray:
    """Return (epoch, validation loss, score that ranks the task's models) after each epoch, shape (epochs, 3)."""
    metric = tasks.of(found).objective
    points = []
    for row in found.training.epochs:
        score = row.validation_accuracy if row.validation_scores is None else row.validation_scores[metric.name]
        points.append([row.epoch, row.validation_loss, score])
    return numpy.array(points)


# ---------------------------------------------------------------- a curve over training rows


def write_rows_curve(points: Sequence, metric: tasks.Metric, baseline_keys: Sequence[str], path: Path) -> None:
    """Write a PNG of a metric over training rows; `points` are of rows_curve.Point."""
    _save(path, 8, lambda figure: _rows_curve(points, metric, baseline_keys, figure))


def _rows_curve(points: Sequence, metric: tasks.Metric, baseline_keys: Sequence[str], figure: "Figure") -> None:
    """Draw a metric over training rows with intervals over test texts: methods in colours, baselines dashed in grey."""
    axes = figure.subplots()
    by_key: dict[str, list] = {}
    for point in points:
        by_key.setdefault(point.key, []).append(point)
    markers = dict(zip(baseline_keys, "sv^"))
    for number, (key, line) in enumerate(by_key.items()):
        look = {"color": f"C{number}", "marker": "o"}
        if key in markers:
            look = _DASHED | {"marker": markers[key]}
        values = metric.factor * numpy.array([point.scores[metric.name] for point in line])
        low_ends, high_ends = metric.factor * _values(line, "test_ci95").T
        # With several seeds the interval is the median seed's, which may lie beside the mean.
        lengths = numpy.maximum([values - low_ends, high_ends - values], 0)
        axes.errorbar(
            _values(line, "rows"),
            values,
            lengths,
            label=line[0].title,
            markersize=4,
            capsize=2,
            elinewidth=1,
            **look,
        )
    axes.set(xscale="log", xlabel="training rows", ylabel=metric.column)
    sizes = sorted({point.rows for point in points})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    _light_grid(axes)
    figure.legend(loc="outside lower center", ncols=2)
