"""The pictures of a model card, made from an adapter's results and nothing else."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from adapter_arena.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, PALE, ACCENT = "#292524", "#78716c", "#e7e5e4", "#0f766e"
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same picture
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollar signs
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
_NAMED, _NUMBERED = 30, 12
"""Most labels whose names, and whose numbers, still fit into the confusion matrix."""


def names(found: Results) -> list[str]:
    """The pictures these results have the data for."""
    e, t = found.evaluation, found.training
    has = {
        "confusion_matrix.png": True,
        "learning_curve.png": len(t.epochs) > 1 or bool(t.epochs and t.losses),
        "reliability.png": bool(e.reliability),
    }
    return [name for name, there in has.items() if there]


def write(found: Results, folder: Path) -> None:
    """Write the pictures `names` lists into the adapter folder, 600 px wide; equal results give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    draw = {
        "confusion_matrix.png": _confusion_matrix,
        "learning_curve.png": _learning_curve,
        "reliability.png": _reliability,
    }
    with matplotlib.rc_context(matplotlib.rcParamsDefault):  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE)
        for name in names(found):
            figure = Figure(figsize=(6, 4), layout="constrained")
            draw[name](found, figure)
            figure.savefig(folder / name, format="png", dpi=100, metadata={"Software": None})


def _confusion_matrix(found: Results, figure: "Figure") -> None:
    """Shares of each true class, so that a rare class is as readable as a common one; counts in the cells."""
    matrix, n = found.evaluation.confusion_matrix, len(found.labels)
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    side = min(6.0, 3 + 0.5 * n)
    figure.set_size_inches(6, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap=_palette(), vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    ticks = range(n) if n <= _NAMED else []
    shown = [name if len(name) <= 18 else name[:17] + "…" for name in found.labels][: len(ticks)]
    axes.set_xticks(ticks, shown, rotation=0 if n <= 5 else 90)
    axes.set_yticks(ticks, shown)
    for i, row in enumerate(matrix if n <= _NUMBERED else []):
        for j, count in enumerate(row):
            text = f"{count:,}\n{shares[i][j]:.1%}" if n <= 6 else f"{count:,}"
            axes.text(j, i, text, ha="center", va="center", color="white" if shares[i][j] > 0.5 else INK)


def _palette():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", ["#f5f5f4", ACCENT])


def _learning_curve(found: Results, figure: "Figure") -> None:
    """Loss; beside and below it, where there is something to see, validation accuracy, learning rate and memory."""
    t = found.training
    ends, per_epoch = [row.epoch for row in t.epochs], 1
    if t.losses:
        per_epoch = math.ceil(found.dataset.splits["train"] / found.recipe["batch_size"])
    lines = {"learning rate": t.learning_rates, "memory held, MB": t.memory_mb}
    panels = 1 + (len(t.epochs) > 1) + sum(map(bool, lines.values()))
    rows, columns = math.ceil(panels / 2), min(2, panels)
    figure.set_size_inches(6, 3 if rows == 1 else 5)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    loss, *beside = grid[:panels]
    for unused in grid[panels:]:
        unused.remove()
    if t.losses:
        steps, losses = zip(*t.losses)
        loss.plot([step / per_epoch for step in steps], losses, color=GREY, label="train")
    else:
        loss.plot(ends, [row.train_loss for row in t.epochs], color=GREY, marker="o", label="train")
    loss.plot(ends, [row.validation_loss for row in t.epochs], color=ACCENT, marker="o", label="validation")
    loss.set(title="loss")
    loss.set_ylim(bottom=0)
    loss.legend()
    if len(t.epochs) > 1:
        axes = beside.pop(0)
        axes.plot(ends, [100 * row.validation_accuracy for row in t.epochs], color=ACCENT, marker="o")
        axes.set(title="validation accuracy, %")
    for axes, (title, points) in zip(beside, [item for item in lines.items() if item[1]]):
        axes.plot([step / per_epoch for step, _ in points], [value for _, value in points], color=GREY)
        axes.set(title=title, ylim=(0, None))
    for axes in grid[:panels]:
        axes.set(xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _light_grid(axes)


def _reliability(found: Results, figure: "Figure") -> None:
    """Accuracy over confidence with 95 % intervals; a point's area is its share of the test rows."""
    bins, e = found.evaluation.reliability, found.evaluation
    axes = figure.subplots()
    low = min(1 / len(found.labels), *(b.confidence for b in bins))
    axes.plot([low, 1], [low, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
    x = [b.confidence for b in bins]
    axes.vlines(x, [b.accuracy_ci95[0] for b in bins], [b.accuracy_ci95[1] for b in bins], color="#99c5c0", linewidth=2)
    area = [12 + 400 * b.n / e.n for b in bins]
    axes.scatter(x, [b.accuracy for b in bins], s=area, color=ACCENT, zorder=3, label="this adapter, 95 % interval")
    axes.set(xlabel="confidence", ylabel="accuracy", ylim=(0, 1.03), title=f"calibration error (ECE) {e.ece:.3f}")
    axes.legend(loc="lower right", markerscale=0.6)
    _light_grid(axes)


def _light_grid(axes: "Axes") -> None:
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


# ---------------------------------------------------------------- comparisons


def write_comparison(rows: list, baseline: float, found: dict[str, list[Results]], folder: Path) -> None:
    """Write pareto.png, before_after.png and curves.png of a comparison (rows of compare.Row) into `folder`."""
    import matplotlib
    from matplotlib.figure import Figure

    draw = {
        "pareto.png": lambda figure: _pareto(rows, figure),
        "before_after.png": lambda figure: _before_after(rows, baseline, figure),
        "curves.png": lambda figure: _curves({row.title: found[row.name] for row in rows}, figure),
    }
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        matplotlib.rcParams.update(_STYLE)
        for name, make in draw.items():
            figure = Figure(figsize=(7, 4), layout="constrained")
            make(figure)
            figure.savefig(folder / name, format="png", dpi=100, metadata={"Software": None})


def _pareto(rows: list, figure: "Figure") -> None:
    """Accuracy over trained parameters, intervals over seeds; the dashed line joins what no other method beats on both."""
    axes = figure.subplots()
    for row in rows:
        low, high = row.accuracy_ci95 or row.test_ci95
        axes.vlines(row.trainable_params, 100 * low, 100 * high, color="#99c5c0", linewidth=2)
        axes.scatter(row.trainable_params, 100 * row.accuracy, color=ACCENT, zorder=3)
        at = (row.trainable_params, 100 * row.accuracy)
        axes.annotate(row.title, at, xytext=(6, 4), textcoords="offset points")
    front, best = [], -1.0
    for row in sorted(rows, key=lambda row: (row.trainable_params, -row.accuracy)):
        if row.accuracy > best:
            best = row.accuracy
            front.append((row.trainable_params, 100 * row.accuracy))
    axes.plot(*zip(*front), color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xscale="log", xlabel="trained parameters", ylabel="accuracy, %")
    # matplotlib writes powers of ten as mathematics, which labels here are not read as.
    axes.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
    axes.margins(x=0.15)
    _light_grid(axes)


def _before_after(rows: list, baseline: float, figure: "Figure") -> None:
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh([i + 0.2 for i in places], [100 * baseline] * len(rows), height=0.35, color=PALE, label="untrained")
    bars = axes.barh(
        [i - 0.2 for i in places], [100 * r.accuracy for r in rows], height=0.35, color=ACCENT, label="trained"
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_yticks(places, [row.title for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, %", xlim=(0, 108))
    figure.legend(loc="outside upper right", ncols=2)


def _curves(found: dict[str, list[Results]], figure: "Figure") -> None:
    """Validation accuracy and loss by epoch, mean over seeds."""
    accuracy, loss = figure.subplots(1, 2)
    for number, (title, runs) in enumerate(found.items()):
        epochs = [row.epoch for row in runs[0].training.epochs]
        look = {"label": title, "color": f"C{number}", "marker": "o", "markersize": 3}
        for axes, of, scale in ((accuracy, "validation_accuracy", 100), (loss, "validation_loss", 1)):
            means = [
                scale * sum(getattr(r.training.epochs[i], of) for r in runs) / len(runs) for i in range(len(epochs))
            ]
            axes.plot(epochs, means, **look)
    accuracy.set(title="validation accuracy, %", xlabel="epoch")
    loss.set(title="validation loss", xlabel="epoch")
    for axes in (accuracy, loss):
        axes.xaxis.get_major_locator().set_params(integer=True)
        _light_grid(axes)
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(found)))
